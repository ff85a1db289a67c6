"""The film of an episode: both cameras side by side, the energy trace growing underneath."""

from __future__ import annotations

import errno
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio
import numpy as np
from imageio_ffmpeg import count_frames_and_secs
from PIL import Image, ImageDraw, ImageFont

from models.whole import whole_file
from studio.pace import CONTROL_HZ
from studio.recorder import Episode, NothingRecorded

HEADER, STRIP, PAD = 32, 128, 12  # pixels
INK, MUTED, PAPER = (31, 41, 55), (148, 156, 168), (252, 252, 251)
IN_DISTRIBUTION, OUT_OF_DISTRIBUTION = (13, 148, 136), (234, 88, 12)


def write_mp4(
    episode: Episode,
    path: Path,
    threshold: float | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Path:
    """Write `path` (H.264, 20 frames a second, one per control step); returns it.

    Final energies above `threshold` are drawn in the warning colour.
    Raises NothingRecorded when no frame was rendered.
    """
    if not episode.frames:
        raise NothingRecorded("No picture was rendered in this episode: run the scene first.")
    trace = _Trace.of(episode, threshold)
    with (
        whole_file(path) as temporary,
        imageio.get_writer(
            temporary, fps=CONTROL_HZ, codec="libx264", quality=7, macro_block_size=16
        ) as video,
    ):
        for step, cameras in _pictures(episode):
            video.append_data(_compose(episode, trace, step, cameras))
            progress(step / max(trace.steps, 1))
        video.close()
        _check(temporary, trace.steps + 1, path)
    return path


def _check(film: Path, frames: int, path: Path) -> None:
    """Raises OSError unless all are in it: the encoder does not tell of a disk that filled up."""
    try:
        count, _ = count_frames_and_secs(str(film))
    except RuntimeError:
        count = 0
    if count != frames:
        raise OSError(errno.ENOSPC, f"{count} of {frames} pictures could be written", str(path))


def _pictures(episode: Episode) -> Iterator[tuple[int, list[Image.Image]]]:
    """One entry per control step: the newest pictures rendered up to it."""
    frames = iter(episode.frames)
    upcoming, shown = next(frames), None
    for step in range(episode.steps[-1].step + 1):
        while upcoming is not None and (upcoming.step <= step or shown is None):
            cameras = ("agentview", "wrist")
            shown = [Image.open(io.BytesIO(upcoming.jpegs[name])) for name in cameras]
            upcoming = next(frames, None)
        yield step, shown


def _compose(episode: Episode, trace: _Trace, step: int, cameras: list[Image.Image]) -> np.ndarray:
    """One frame of the film, uint8 [height, width, 3]."""
    side = cameras[0].height
    canvas = Image.new("RGB", (side * len(cameras), HEADER + side + STRIP), PAPER)
    draw = ImageDraw.Draw(canvas)
    instruction = episode.begin.instruction
    for mark in episode.marks:
        if mark.kind == "instruction" and mark.step <= step:
            instruction = mark.text
    draw.text((PAD, 9), _clip(instruction, canvas.width - 80), INK, _font(13))
    draw.text((canvas.width - PAD, 9), f"step {step}", MUTED, _font(13), anchor="ra")
    for index, camera in enumerate(cameras):
        canvas.paste(camera, (index * side, HEADER))
    trace.draw(draw, step, top=HEADER + side, width=canvas.width)
    return np.asarray(canvas)


@dataclass(frozen=True, slots=True)
class _Trace:
    """Final energies on the axes of the whole episode."""

    points: list[tuple[int, float]]  # control step and energy of each plan
    marks: list[int]  # their control steps
    steps: int
    threshold: float | None

    @classmethod
    def of(cls, episode: Episode, threshold: float | None) -> _Trace:
        points = [(r.step, r.plan.final_energy) for r in episode.plans if r.plan.trace]
        marks = [mark.step for mark in episode.marks]
        return cls(points, marks, episode.steps[-1].step, threshold)

    def draw(self, draw: ImageDraw.ImageDraw, step: int, *, top: int, width: int) -> None:
        """What is known by `step`."""
        draw.text((PAD, top + 6), "final energy", MUTED, _font(11))
        if not self.points:
            return
        levels = [energy for _, energy in self.points]
        levels += [] if self.threshold is None else [self.threshold]
        low, high = min(levels), max(levels)
        span = (high - low) or 1.0
        x_of = lambda s: PAD + (width - 2 * PAD) * s / max(1, self.steps)  # noqa: E731
        y_of = lambda e: top + STRIP - PAD - (STRIP - 40) * (e - low) / span  # noqa: E731
        for mark in self.marks:
            if mark <= step:
                draw.line([(x_of(mark), top + 24), (x_of(mark), top + STRIP - PAD)], MUTED)
        if self.threshold is not None:
            limit = y_of(self.threshold)
            draw.line([(PAD, limit), (width - PAD, limit)], OUT_OF_DISTRIBUTION)
            text = f"threshold {self.threshold:.2f}"
            draw.text((width - PAD, top + 6), text, OUT_OF_DISTRIBUTION, _font(11), anchor="ra")
        seen = [((x_of(s), y_of(e)), e) for s, e in self.points if s <= step]
        for (a, _), (b, _) in itertools.pairwise(seen):
            draw.line([a, b], INK, 2)
        for (x, y), energy in seen:
            warn = self.threshold is not None and energy > self.threshold
            colour = OUT_OF_DISTRIBUTION if warn else IN_DISTRIBUTION
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], colour)


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _clip(text: str, width: int) -> str:
    """`text`, cut with an ellipsis to `width` pixels."""
    font = _font(13)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"

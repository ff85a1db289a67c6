"""The film of an episode: both cameras side by side, the energy trace growing underneath."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio.recorder import Episode, NothingRecorded, whole_file

FPS = 20  # LIBERO's control rate
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
    total = episode.steps[-1].step
    with (
        whole_file(path) as temporary,
        imageio.get_writer(
            temporary, fps=FPS, codec="libx264", quality=7, macro_block_size=16
        ) as video,
    ):
        for step, cameras in _pictures(episode):
            video.append_data(compose(episode, step, cameras, threshold))
            progress(step / max(total, 1))
    return path


def _pictures(episode: Episode) -> Iterator[tuple[int, list[Image.Image]]]:
    """One entry per control step: the newest pictures rendered up to it."""
    frames = iter(sorted(episode.frames, key=lambda frame: frame.step))
    upcoming, shown = next(frames), None
    for step in range(episode.steps[-1].step + 1):
        while upcoming is not None and (upcoming.step <= step or shown is None):
            cameras = ("agentview", "wrist")
            shown = [Image.open(io.BytesIO(upcoming.jpegs[name])) for name in cameras]
            upcoming = next(frames, None)
        yield step, shown


def compose(
    episode: Episode, step: int, cameras: list[Image.Image], threshold: float | None
) -> np.ndarray:
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
    _draw_trace(draw, episode, step, threshold, top=HEADER + side, width=canvas.width)
    return np.asarray(canvas)


def _draw_trace(
    draw: ImageDraw.ImageDraw,
    episode: Episode,
    step: int,
    threshold: float | None,
    *,
    top: int,
    width: int,
) -> None:
    """Final energies up to `step` on the axes of the whole episode."""
    draw.text((PAD, top + 6), "final energy", MUTED, _font(11))
    records = [record for record in episode.plans if record.plan.trace]
    if not records:
        return
    energies = [record.plan.final_energy for record in records]
    levels = energies + ([threshold] if threshold is not None else [])
    low, high = min(levels), max(levels)
    span = (high - low) or 1.0
    x_of = lambda s: PAD + (width - 2 * PAD) * s / max(1, episode.steps[-1].step)  # noqa: E731
    y_of = lambda e: top + STRIP - PAD - (STRIP - 40) * (e - low) / span  # noqa: E731
    for mark in episode.marks:
        if mark.step <= step:
            draw.line([(x_of(mark.step), top + 24), (x_of(mark.step), top + STRIP - PAD)], MUTED)
    if threshold is not None:
        draw.line([(PAD, y_of(threshold)), (width - PAD, y_of(threshold))], OUT_OF_DISTRIBUTION)
    points = [(x_of(r.step), y_of(e)) for r, e in zip(records, energies, strict=True)]
    seen = [(p, e) for p, e, r in zip(points, energies, records, strict=True) if r.step <= step]
    for (a, _), (b, _) in itertools.pairwise(seen):
        draw.line([a, b], INK, 2)
    for (x, y), energy in seen:
        warn = threshold is not None and energy > threshold
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

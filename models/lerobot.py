"""LeRobotDataset v3.0: where its files are, and its demonstrations of LIBERO read back.

meta/info.json             version, fps, path templates, features
meta/tasks.parquet         task_index <- instruction
meta/episodes/*/*.parquet  per episode: length, tasks, its data file, its span of each video file
data/*/*.parquet           per frame: state, action, task_index, ...; many episodes per file
videos/<key>/*/*.mp4       the pictures, episode after episode ("image" features lie in `data`)

`studio.lerobot` writes it. Pictures are upright when the feature's `info` says so; otherwise they
are taken to lie mirrored left to right, as in OpenVLA's LIBERO data and all that was converted from
it, and are turned. Actions are the environment's: gripper -1 opens, +1 closes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from models.config import PIXELS
from models.trajectory import Trajectory, check_actions, check_images

VERSION = "v3.0"
INFO = "meta/info.json"
CAMERA_KEYS = ("observation.images.image", "observation.images.image2")  # order of `CAMERAS`
STATE, ACTION = "observation.state", "action"
DRIVER, NOBODY = "driver", -1  # of recordings: a place in DRIVERS; NOBODY in a demonstration
DONE = "next.done"  # of recordings: whether the motion came to its end with this action
CONVENTION, UPRIGHT, MIRRORED = "image_convention", "upright", "mirrored"
RENDERER = "pixels"  # beside it, which one drew the pictures

Episode = Mapping[str, object]  # a row of meta/episodes


def read_folder(root: Path, stride: int = 1, action_dim: int = 7) -> Iterator[Trajectory]:
    """The demonstrations in order of their episode index, one in memory at a time.

    Raises ValueError (one line, naming the folder) for another version, missing features or files,
    truncated ones, another action size, pictures that are not square, or values not finite.
    """
    with _opened(root) as info:
        tasks, cameras = _read_tasks(root), [_Camera(root, info, key) for key in CAMERA_KEYS]
        for path, episodes in groupby(_read_episodes(root), lambda e: _path(root, info, "data", e)):
            wanted = [c.key for c in cameras if not c.is_video]
            wanted += [name for name in (DRIVER, DONE) if name in info["features"]]
            table = pq.read_table(
                path, columns=["episode_index", "task_index", STATE, ACTION, *wanted]
            )
            for episode in episodes:
                rows = _rows_of(table, episode)
                if len(rows) != episode["length"] or not len(rows):
                    raise ValueError(f"{path.name}: not the rows that meta/episodes announces")
                images = np.stack([c.read(episode, rows, stride) for c in cameras], axis=1)
                yield Trajectory(
                    instruction=tasks[rows["task_index"][0].as_py()],
                    suite=root.name if root.name.startswith("libero_") else "unknown",
                    images=images,
                    proprio=_matrix(rows[STATE]),
                    actions=check_actions(_matrix(rows[ACTION]), action_dim),
                    driver=_driver(rows),
                    finished=_finished(rows),
                    pixels=cameras[0].pixels,
                )


def outline(root: Path) -> dict[str, list[int]]:
    """Instructions, each with the steps of its demonstrations. Raises as `read_folder`."""
    steps: dict[str, list[int]] = {}
    with _opened(root):
        for episode in _read_episodes(root):
            steps.setdefault(_instruction(episode), []).append(episode["length"])
    return steps


def glimpse(root: Path, instruction: str, demo: int) -> np.ndarray:
    """First, middle and last picture, uint8 [3, S, S, 3], upright, of an instruction's `demo`-th.

    They are the first camera's. Raises IndexError for a demonstration that is not there, otherwise
    as `read_folder`.
    """
    with _opened(root) as info:
        episode = [e for e in _read_episodes(root) if _instruction(e) == instruction][demo]
        length = episode["length"]
        return _Camera(root, info, CAMERA_KEYS[0]).glimpse(episode, (0, length // 2, length - 1))


@contextmanager
def _opened(root: Path) -> Iterator[Mapping]:
    """meta/info.json of a dataset; failures told in one line."""
    try:
        yield _read_info(root)
    except KeyError as error:
        raise ValueError(f"{root}: no LeRobot dataset of LIBERO, {error} is missing") from None
    except (TypeError, AttributeError) as error:  # there, but of another kind
        raise ValueError(f"{root}: no LeRobot dataset of LIBERO ({error})") from None
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{root}: unreadable or truncated LeRobot dataset ({first})") from None
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from None


def _read_info(root: Path) -> dict:
    try:
        info = json.loads((root / INFO).read_text())
        version = str(info["codebase_version"])
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{INFO} is no JSON object ({error})") from None
    if version.split(".")[0] != VERSION.split(".")[0]:
        raise ValueError(f"LeRobotDataset {version}; convert it to {VERSION} with LeRobot's tools")
    return info


def _read_tasks(root: Path) -> dict[int, str]:
    """Instructions by task index; their column's name depends on who wrote it."""
    table = pq.read_table(root / "meta/tasks.parquet")
    texts = [f.name for f in table.schema if f.type in (pa.string(), pa.large_string())]
    if len(texts) != 1:
        raise ValueError("meta/tasks.parquet: one column of instructions expected")
    return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))


def _read_episodes(root: Path) -> list[Episode]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    rows = [row for file in files for row in pq.read_table(file, columns=_lean(file)).to_pylist()]
    if not rows:
        raise ValueError("meta/episodes names no episodes")
    return sorted(rows, key=lambda row: row["episode_index"])


def _instruction(episode: Episode) -> str:
    if not episode["tasks"]:
        raise ValueError(f"episode {episode['episode_index']} names no task")
    return episode["tasks"][0]


def _rows_of(table: pa.Table, episode: Episode) -> pa.Table:
    """An episode's rows of the table that holds it."""
    return table.take(np.flatnonzero(table["episode_index"].to_numpy() == episode["episode_index"]))


def _lean(file: Path) -> list[str]:
    """Columns of meta/episodes without each episode's statistics."""
    return [name for name in pq.read_schema(file).names if not name.startswith("stats/")]


def _path(root: Path, info: Mapping, kind: str, episode: Episode, **more: str) -> Path:
    """The file of `kind` ("data" or "videos/<key>") that holds `episode`, inside `root`."""
    template = info["data_path" if kind == "data" else "video_path"]
    path = root / template.format(
        chunk_index=episode[f"{kind}/chunk_index"], file_index=episode[f"{kind}/file_index"], **more
    )
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{INFO} names a file outside of the folder")
    return path


def _driver(rows: pa.Table) -> np.ndarray | None:
    """Who drove each step, or None for a demonstration."""
    if DRIVER not in rows.column_names:
        return None
    driver = rows[DRIVER].to_numpy()
    return None if (driver == NOBODY).all() else driver.astype(np.uint8)


def _finished(rows: pa.Table) -> bool:
    """False for a recording that was cut off; who else has this column may mean another end."""
    return not {DRIVER, DONE} <= set(rows.column_names) or bool(rows[DONE][-1].as_py())


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists as float32 [rows, length]."""
    return np.array(column.to_pylist(), dtype=np.float32)


class _Camera:
    """The pictures of one feature, in a video or in the table, read episode after episode."""

    def __init__(self, root: Path, info: Mapping, key: str) -> None:
        feature = info["features"][key]
        self.key = key
        self.is_video = feature["dtype"] == "video"
        self._root, self._info = root, info
        about = feature.get("info") or {}
        self.pixels = about.get(RENDERER, PIXELS[0])
        self._mirrored = about.get(CONVENTION, MIRRORED) != UPRIGHT
        self._path: Path | None = None
        self._next = 0  # index in the video of the frame that comes next

    def read(self, episode: Episode, rows: pa.Table, stride: int) -> np.ndarray:
        """uint8 RGB [n, S, S, 3], upright, of every `stride`-th step."""
        if self.is_video:
            return self._upright(self._film(episode)[::stride])
        return self._upright(self._stills(rows, range(0, len(rows), stride)))

    def glimpse(self, episode: Episode, steps: Sequence[int]) -> np.ndarray:
        """uint8 RGB [len(steps), S, S, 3], upright; a video is not read from its beginning."""
        if self.is_video:
            return self._upright(self._sought(episode, steps))
        path = _path(self._root, self._info, "data", episode)
        table = pq.read_table(path, columns=["episode_index", self.key])
        return self._upright(self._stills(_rows_of(table, episode), steps))

    def _upright(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        images = check_images(np.stack(frames))
        return images[:, :, ::-1] if self._mirrored else images

    def _stills(self, rows: pa.Table, steps: Sequence[int]) -> list[np.ndarray]:
        encoded = rows[self.key].take(list(steps)).to_pylist()
        return [np.asarray(Image.open(io.BytesIO(e["bytes"])).convert("RGB")) for e in encoded]

    def _place(self, episode: Episode) -> tuple[Path, int]:
        """An episode's video, and its first frame there."""
        path = _path(self._root, self._info, f"videos/{self.key}", episode, video_key=self.key)
        if not path.is_file():
            raise ValueError(f"{path.name} of {self.key} is missing")
        return path, round(episode[f"videos/{self.key}/from_timestamp"] * self._info["fps"])

    def _sought(self, episode: Episode, steps: Sequence[int]) -> list[np.ndarray]:
        (path, first), found = self._place(episode), []
        for step in steps:
            begin = max(0.0, (first + step - 0.5) / self._info["fps"])  # seconds; what comes next
            frames = imageio_ffmpeg.read_frames(path, input_params=["-ss", f"{begin:.4f}"])
            width, height = next(frames)["size"]
            if (frame := next(frames, None)) is None:
                raise ValueError(f"{path.name}: the video ends before frame {first + step}")
            found.append(np.frombuffer(frame, np.uint8).reshape(height, width, 3))
            frames.close()
        return found

    def _film(self, episode: Episode) -> list[np.ndarray]:
        (path, first), length = self._place(episode), episode["length"]
        if path != self._path or first < self._next:
            self._open(path)
        frames = list(islice(self._frames, first - self._next, first - self._next + length))
        if len(frames) < length:
            raise ValueError(
                f"{path.name}: the video ends within episode {episode['episode_index']}"
            )
        self._next = first + length
        return [np.frombuffer(f, np.uint8).reshape(*self._size, 3) for f in frames]

    def _open(self, path: Path) -> None:
        if self._path is not None:
            self._frames.close()
        # one picture per stored frame, whatever the timestamps are
        self._frames = imageio_ffmpeg.read_frames(path, output_params=["-fps_mode", "passthrough"])
        width, height = next(self._frames)["size"]
        self._path, self._next, self._size = path, 0, (height, width)

"""Export demonstrations as a LeRobotDataset v3.0: `python -m studio.lerobot DEMOS OUT`.

DEMOS holds LIBERO's HDF5 files (`studio.collect`'s or the official ones) or such datasets. Every
task gets a data file and a video file per camera (H.264, a keyframe in every second picture, as
LeRobot encodes, so that frames can be read in any order). OUT appears only once it is whole.
`models.lerobot` describes the layout and reads it back; the dataset's README.md says what the
numbers mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from models import lerobot
from models.data import read_demonstrations
from models.trajectory import DRIVERS, Trajectory
from models.whole import whole_folder
from studio.demos import BLOCK
from studio.lerobot_statistics import level_counts, statistics_of
from studio.pace import CONTROL_HZ

FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
VIDEO_OPTIONS = ["-g", "2", "-bf", "0", "-crf", "18"]
SAMPLED = 4  # picture statistics come from every fourth picture

STATE_NAMES = [
    "x",
    "y",
    "z",
    "axis_angle_x",
    "axis_angle_y",
    "axis_angle_z",
    "finger_1",
    "finger_2",
]
ACTION_AXES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
SCHEMA = pa.schema(
    [
        (lerobot.STATE, pa.list_(pa.float32(), len(STATE_NAMES))),
        (lerobot.ACTION, pa.list_(pa.float32(), len(ACTION_AXES))),
        ("timestamp", pa.float32()),
        ("frame_index", pa.int64()),
        ("episode_index", pa.int64()),
        ("index", pa.int64()),
        ("task_index", pa.int64()),
    ]
)
RECORDED = (pa.field(lerobot.DRIVER, pa.int64()), pa.field(lerobot.DONE, pa.bool_()))
DTYPES = {pa.float32(): "float32", pa.int64(): "int64", pa.bool_(): "bool"}

CARD = """---
task_categories:
- robotics
tags:
- LeRobot
- LIBERO
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# LIBERO demonstrations, LeRobotDataset v3.0

- `observation.images.image`, `observation.images.image2`: agentview and wrist camera, {convention}.
- `observation.state`: end-effector position (m), its orientation as axis-angle (rad), two finger
  joints (m).
- `action`: the environment's own, Δposition and Δrotation of LIBERO's OSC_POSE controller in
  [-1, 1]; gripper -1 opens, +1 closes.
{driver}
Row t holds what was seen before `action` t. {episodes} episodes, {frames} frames, {fps} per second.
"""
CARD_DRIVER = (
    f"- `driver`: who drove, a place in the list {', '.join(DRIVERS)}; "
    f"{lerobot.NOBODY} in a demonstration.\n"
    f"- `{lerobot.DONE}`: in an episode's last row whether the motion had come to its end; not if\n"
    "  the recording was cut off there.\n"
)
CONVENTIONS = {
    lerobot.UPRIGHT: "upright, as a person sees the scene",
    lerobot.MIRRORED: "mirrored left to right, as in OpenVLA's LIBERO data",
}


def export(
    demos: Path, out: Path, fps: int = CONTROL_HZ, mirrored: bool = False, drivers: bool = False
) -> dict:
    """Write all demonstrations under `demos` as the dataset `out`; returns its info.json.

    mirrored: pictures left to right, as in OpenVLA's LIBERO data. drivers: two features more, who
    drove each step and whether the episode was cut off (see CARD_DRIVER). Raises ValueError when
    `out` exists or `demos` can't be read, OSError when it can't be written; `out` then does not
    appear.
    """
    if not 1 <= fps <= 1000:
        raise ValueError(f"--fps must lie in [1, 1000], not {fps}")
    with whole_folder(out) as folder, closing(_Dataset(folder, fps, mirrored, drivers)) as dataset:
        for demo in tqdm(read_demonstrations(demos), unit=" episodes", leave=False):
            dataset.add(demo)
        return dataset.finish()


class _Dataset:
    """Takes episodes one by one; `finish` writes what describes them all."""

    def __init__(self, folder: Path, fps: int, mirrored: bool, drivers: bool) -> None:
        self._folder, self._fps, self._mirrored = folder, fps, mirrored
        self._schema = pa.schema([*SCHEMA, *RECORDED]) if drivers else SCHEMA
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict] = []
        self._tables: list[pa.Table] = []
        self._levels = {key: np.zeros((3, 256), np.int64) for key in lerobot.CAMERA_KEYS}
        self._files: _Files | None = None
        self._side, self._pixels = 0, ""

    def add(self, demo: Trajectory) -> None:
        """Append one episode. Raises ValueError when it doesn't fit the others."""
        self._open_files(demo)
        task = self._tasks[demo.instruction]
        first = sum(map(len, self._tables))
        table = _table(self._schema, demo, len(self._episodes), first, task, self._fps)
        levels = {key: np.zeros((3, 256), np.int64) for key in lerobot.CAMERA_KEYS}
        for pictures in self._blocks(demo):
            self._files.film(pictures)
            for camera, counts in enumerate(levels.values()):
                counts += level_counts(pictures[::SAMPLED, camera])
        span = self._files.end_episode(table)
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": [demo.instruction],
                "length": len(table),
                **span,
                "dataset_from_index": table["index"][0].as_py(),
                "dataset_to_index": table["index"][-1].as_py() + 1,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **_flat(statistics_of(table, levels, self._side)),
            }
        )
        self._tables.append(table)
        for key, counts in levels.items():
            self._levels[key] += counts

    def _blocks(self, demo: Trajectory) -> Iterator[np.ndarray]:
        """Its pictures, uint8 [n, 2, S, S, 3] at a time: an episode may last half an hour."""
        for first in range(0, len(demo.images), BLOCK):
            pictures = demo.images[first : first + BLOCK]
            yield pictures[:, :, :, ::-1] if self._mirrored else pictures

    def _open_files(self, demo: Trajectory) -> None:
        """A new task gets new files."""
        side = demo.images.shape[2]
        self._side = self._side or side
        if side != self._side or side % 2:
            raise ValueError(f"pictures of side {side}; a video needs one even size throughout")
        self._pixels = self._pixels or demo.pixels
        if demo.pixels != self._pixels:
            raise ValueError("pictures of two renderers, fast and faithful; export them apart")
        if demo.instruction not in self._tasks:
            self._tasks[demo.instruction] = len(self._tasks)
            self._complete_files()
            number = len(self._tasks) - 1
            self._files = _Files(self._folder, self._schema, number, side, self._fps)

    def finish(self) -> dict:
        """Write `meta`; returns info.json. Raises OSError when a video did not become whole."""
        self._complete_files()
        info = self._info()
        meta = self._folder / "meta"
        episodes = meta / "episodes/chunk-000/file-000.parquet"
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        tasks = pd.DataFrame(
            {"task_index": range(len(self._tasks))}, index=pd.Index(list(self._tasks), name="task")
        )
        tasks.to_parquet(meta / "tasks.parquet")
        statistics = statistics_of(pa.concat_tables(self._tables), self._levels, self._side)
        (meta / "stats.json").write_text(json.dumps(statistics, indent=4))
        (self._folder / lerobot.INFO).write_text(json.dumps(info, indent=4))
        (self._folder / "README.md").write_text(
            CARD.format(
                convention=CONVENTIONS[self._convention],
                driver=CARD_DRIVER if lerobot.DRIVER in self._schema.names else "",
                episodes=info["total_episodes"],
                frames=info["total_frames"],
                fps=self._fps,
            )
        )
        return info

    def _complete_files(self) -> None:
        files = self._files
        self.close()
        if files is not None:
            files.check()

    def close(self) -> None:
        """End the open files, whatever they hold."""
        files, self._files = self._files, None
        if files is not None:
            files.close()

    @property
    def _convention(self) -> str:
        return lerobot.MIRRORED if self._mirrored else lerobot.UPRIGHT

    def _info(self) -> dict:
        episodes = len(self._episodes)
        return {
            "codebase_version": lerobot.VERSION,
            "robot_type": "panda",
            "total_episodes": episodes,
            "total_frames": sum(map(len, self._tables)),
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self._features(),
        }

    def _features(self) -> dict[str, dict]:
        video = {
            "video.height": self._side,
            "video.width": self._side,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": self._fps,
            "video.channels": 3,
            "has_audio": False,
            lerobot.CONVENTION: self._convention,
            lerobot.RENDERER: self._pixels,
        }
        names = ["height", "width", "channels"]
        shape = [self._side, self._side, 3]
        features = {
            key: {"dtype": "video", "shape": shape, "names": names, "info": video}
            for key in lerobot.CAMERA_KEYS
        }
        for key, names in ((lerobot.STATE, STATE_NAMES), (lerobot.ACTION, ACTION_AXES)):
            features[key] = {"dtype": "float32", "shape": [len(names)], "names": names}
        for field in list(self._schema)[2:]:
            features[field.name] = {"dtype": DTYPES[field.type], "shape": [1], "names": None}
        return features


class _Files:
    """One data file and the videos beside it; all hold the same episodes."""

    def __init__(self, folder: Path, schema: pa.Schema, index: int, side: int, fps: int) -> None:
        chunk, file = divmod(index, FILES_PER_CHUNK)
        self._place = {"chunk_index": chunk, "file_index": file}
        self._fps, self._frames = fps, 0
        data = folder / DATA_PATH.format(**self._place)
        self._paths = [
            folder / VIDEO_PATH.format(video_key=key, **self._place) for key in lerobot.CAMERA_KEYS
        ]
        for path in (data, *self._paths):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._data = pq.ParquetWriter(data, schema)
        self._videos = [_video(path, side, fps) for path in self._paths]

    def film(self, pictures: np.ndarray) -> None:
        """Append pictures of an episode, uint8 [n, 2, S, S, 3]."""
        for camera, video in enumerate(self._videos):
            for picture in pictures[:, camera]:
                video.send(np.ascontiguousarray(picture))

    def end_episode(self, table: pa.Table) -> dict[str, object]:
        """Append the rows of an episode; returns where it went, as meta/episodes says it."""
        self._data.write_table(table)  # a row group per episode
        begins, self._frames = self._frames, self._frames + len(table)
        span = {f"data/{name}": value for name, value in self._place.items()}
        for key in lerobot.CAMERA_KEYS:
            span |= {f"videos/{key}/{name}": value for name, value in self._place.items()}
            span[f"videos/{key}/from_timestamp"] = begins / self._fps
            span[f"videos/{key}/to_timestamp"] = self._frames / self._fps
        return span

    def close(self) -> None:
        """End the files."""
        self._data.close()
        for video in self._videos:
            video.close()

    def check(self) -> None:
        """Raises OSError when a video of these, closed now, lacks frames (a full disk)."""
        for path in self._paths:
            if _count_frames(path) != self._frames:
                raise OSError(f"{path.name}: the video is not whole; is the disk full?")


def _video(path: Path, side: int, fps: int) -> Iterator[None]:
    """A generator that encodes the pictures sent to it."""
    video = imageio_ffmpeg.write_frames(
        str(path),
        (side, side),
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=2,
        ffmpeg_log_level="quiet",
        output_params=list(VIDEO_OPTIONS),
    )
    video.send(None)
    return video


def _count_frames(path: Path) -> int:
    try:
        return imageio_ffmpeg.count_frames_and_secs(path)[0]
    except RuntimeError:
        return -1


def _table(
    schema: pa.Schema, demo: Trajectory, episode: int, first: int, task: int, fps: int
) -> pa.Table:
    """The rows of one episode."""
    steps = np.arange(len(demo.actions))
    columns = [
        *(
            pa.FixedSizeListArray.from_arrays(v.ravel(), v.shape[1])
            for v in (demo.proprio, demo.actions)
        ),
        (steps / fps).astype(np.float32),
        steps,
        np.full_like(steps, episode),
        steps + first,
        np.full_like(steps, task),
    ]
    if lerobot.DRIVER in schema.names:
        whose = np.full_like(steps, lerobot.NOBODY) if demo.driver is None else demo.driver
        columns += [whose.astype(np.int64), (steps == steps[-1]) & demo.finished]
    return pa.table(columns, schema=schema)


def _flat(statistics: Mapping[str, Mapping[str, list]]) -> dict[str, list]:
    """As columns of meta/episodes: stats/<key>/<name>."""
    return {
        f"stats/{key}/{name}": value for key, of in statistics.items() for name, value in of.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    p = argparse.ArgumentParser(prog="python -m studio.lerobot", description=__doc__.split("\n")[0])
    p.add_argument("demos", type=Path, help="folder of demonstrations")
    p.add_argument("out", type=Path, help="folder to write; must not exist")
    p.add_argument("--fps", type=int, default=CONTROL_HZ, help="control steps a second")
    p.add_argument("--mirrored", action="store_true",
                   help="pictures left to right, as in OpenVLA's LIBERO data")  # fmt: skip
    p.add_argument("--drivers", action="store_true", help="who drove each step of a recording")
    arguments = p.parse_args(argv)
    try:
        info = export(**vars(arguments))
    except KeyboardInterrupt:
        print("stopped; nothing was kept", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"lerobot: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(f"{info['total_episodes']} episodes, {info['total_frames']} frames  {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""LeRobotDataset v3.0: ours read by plain pyarrow and OpenCV, and what others wrote read by us."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import imageio_ffmpeg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models import lerobot as models_lerobot
from models import libero_hdf5
from models.data import load_demonstrations
from studio import lerobot
from tests.helpers import ROOT

CAMERAS = ("observation.images.image", "observation.images.image2")
SIDE, FPS = 32, 20


def scene(camera: int, step: int, episode: int) -> np.ndarray:
    """A picture that says which one it is: a bright left half, a level per step and episode."""
    picture = np.full((SIDE, SIDE, 3), (20 + 8 * step + 60 * camera) % 256, np.uint8)
    picture[:, : SIDE // 2, 0] = 200 - 40 * episode
    picture[: SIDE // 4, :, 2] = 250
    return picture


def write_hdf5(file: Path, instruction: str, lengths: tuple[int, ...], first: int = 0) -> None:
    """LIBERO's format; the pictures lie upside down."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first)
    with h5py.File(file, "w") as h5:
        data = h5.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": instruction})
        data.attrs["macros_image_convention"] = "opengl"
        for i, steps in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo["actions"] = rng.uniform(-1, 1, (steps, 7))
            for key, size in (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2)):
                demo[f"obs/{key}"] = rng.normal(size=(steps, size))
            for camera, key in enumerate(("agentview_rgb", "eye_in_hand_rgb")):
                pictures = np.stack([scene(camera, t, first + i) for t in range(steps)])
                demo[f"obs/{key}"] = pictures[:, ::-1]


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demos") / "libero_object"
    write_hdf5(folder / "milk_demo.hdf5", "pick up the milk", (5, 9), first=0)
    write_hdf5(folder / "soup_demo.hdf5", "pick up the soup", (7,), first=2)
    return folder


@pytest.fixture(scope="module")
def dataset(demos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "libero_object"
    lerobot.export(demos, out)
    return out


def frames(path: Path) -> list[np.ndarray]:
    """All pictures of a video, decoded by OpenCV."""
    film, found = cv2.VideoCapture(str(path)), []
    while (read := film.read())[0]:
        found.append(read[1][:, :, ::-1])
    return found


# -- writing ---------------------------------------------------------------------------------------


def test_the_folder_has_lerobots_layout(dataset):
    files = {str(p.relative_to(dataset)) for p in dataset.rglob("*") if p.is_file()}
    videos = {f"videos/{key}/chunk-000/file-00{i}.mp4" for key in CAMERAS for i in range(2)}
    data = {f"data/chunk-000/file-00{i}.parquet" for i in range(2)}
    meta = {"info.json", "stats.json", "tasks.parquet", "episodes/chunk-000/file-000.parquet"}
    assert files == videos | data | {f"meta/{name}" for name in meta} | {"README.md"}

    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == FPS
    counts = [info[f"total_{name}"] for name in ("episodes", "frames", "tasks")]
    assert counts == [3, 21, 2] and info["splits"] == {"train": "0:3"}
    shapes = {name: (f["dtype"], f["shape"]) for name, f in info["features"].items()}
    assert shapes["observation.state"] == ("float32", [8]) and shapes["action"] == ("float32", [7])
    assert all(shapes[key] == ("video", [SIDE, SIDE, 3]) for key in CAMERAS)


def test_tasks_are_indexed_by_their_instruction(dataset):
    tasks = pd.read_parquet(dataset / "meta/tasks.parquet")
    assert tasks.loc["pick up the soup"].task_index == 1
    assert tasks.iloc[0].name == "pick up the milk"


def test_rows_and_episodes_count_on(dataset):
    table = pq.read_table(dataset / "data")  # both files
    assert table["index"].to_pylist() == list(range(21))
    assert table["episode_index"].to_pylist() == [0] * 5 + [1] * 9 + [2] * 7
    assert table["frame_index"].to_pylist() == [*range(5), *range(9), *range(7)]
    assert table["task_index"].to_pylist() == [0] * 14 + [1] * 7
    np.testing.assert_allclose(table["timestamp"], np.array(table["frame_index"]) / FPS, rtol=1e-6)
    assert table.schema.field("action").type == pa.list_(pa.float32(), 7)
    assert pq.ParquetFile(dataset / "data/chunk-000/file-000.parquet").num_row_groups == 2

    episodes = pq.read_table(dataset / "meta/episodes").to_pylist()
    assert [e["length"] for e in episodes] == [5, 9, 7]
    assert [e["tasks"] for e in episodes] == [["pick up the milk"]] * 2 + [["pick up the soup"]]
    assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [
        (0, 5), (5, 14), (14, 21)
    ]  # fmt: skip
    for key in CAMERAS:
        spans = [[e[f"videos/{key}/{name}_timestamp"] for name in ("from", "to")] for e in episodes]
        np.testing.assert_allclose(spans, [[0, 0.25], [0.25, 0.7], [0, 0.35]])
        assert [e[f"videos/{key}/file_index"] for e in episodes] == [0, 0, 1]


def test_the_videos_show_the_episodes_upright_one_after_another(dataset):
    for camera, key in enumerate(CAMERAS):
        found = frames(dataset / f"videos/{key}/chunk-000/file-000.mp4")
        assert len(found) == 14
        for t in (0, 4, 5, 13):
            wanted = scene(camera, t if t < 5 else t - 5, int(t >= 5))
            assert np.abs(found[t].astype(int) - wanted).mean() < 6


def test_every_second_picture_can_be_decoded_alone(dataset):
    film = cv2.VideoCapture(str(dataset / f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4"))
    film.set(cv2.CAP_PROP_POS_FRAMES, 11)
    picture = film.read()[1][:, :, ::-1]
    assert np.abs(picture.astype(int) - scene(0, 6, 1)).mean() < 6


def test_statistics_are_those_of_the_data(dataset):
    stats = json.loads((dataset / "meta/stats.json").read_text())
    actions = np.stack(pq.read_table(dataset / "data")["action"].to_numpy())
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(actions, 0.99, 0), rtol=1e-5)
    assert stats["action"]["count"] == [21]
    for camera in CAMERAS:  # every fourth picture of 5, 9 and 7
        assert stats[camera]["count"] == [2 + 3 + 2]
    pictures = np.stack([scene(0, t, e) for e, n in enumerate((5, 9, 7)) for t in range(0, n, 4)])
    channels = pictures.reshape(-1, 3) / 255
    of = stats[CAMERAS[0]]
    assert np.shape(of["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(of["mean"]), channels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(of["std"]), channels.std(0), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(of["max"]), channels.max(0))
    np.testing.assert_allclose(
        np.ravel(of["q50"]), np.quantile(channels, 0.5, axis=0, method="inverted_cdf")
    )


# -- and back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_round_trip_changes_nothing_but_the_pictures_a_little(demos, tmp_path, stride, mirrored):
    lerobot.export(demos, tmp_path / "libero_object", mirrored=mirrored)
    before, after = (load_demonstrations(f, 8, stride) for f in (demos, tmp_path))
    for name in ("actions", "proprio", "task", "demo"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.instructions == before.instructions and after.suites == before.suites
    errors = np.abs(after.images.astype(int) - before.images)
    assert after.images.shape == before.images.shape and errors.mean() < 6


@pytest.mark.parametrize(("mirrored", "said"), [(False, "upright"), (True, "mirrored")])
def test_the_videos_lie_as_is_said_of_them(demos, tmp_path, mirrored, said):
    out = tmp_path / "libero_object"
    lerobot.export(demos, out, mirrored=mirrored)
    features = json.loads((out / "meta/info.json").read_text())["features"]
    for camera, key in enumerate(CAMERAS):
        assert features[key]["info"]["image_convention"] == said
        shown = frames(out / f"videos/{key}/chunk-000/file-000.mp4")[4].astype(int)
        wanted = scene(camera, 4, 0)
        assert np.abs(shown - (wanted[:, ::-1] if mirrored else wanted)).mean() < 6


def write_foreign(root: Path, names: str = "__index_level_0__") -> None:
    """As the published datasets are: PNGs in the table, mirrored, nothing said about it."""
    rng = np.random.default_rng(3)
    rows = []
    for episode, steps in ((0, 4), (1, 6)):
        for t in range(steps):
            row = {"episode_index": episode, "frame_index": t, "task_index": episode}
            row |= {"action": rng.uniform(-1, 1, 7), "observation.state": rng.normal(size=8)}
            for camera, key in enumerate(CAMERAS):
                png = io.BytesIO()
                Image.fromarray(scene(camera, t, episode)[:, ::-1]).save(png, "png")
                row[key] = {"bytes": png.getvalue(), "path": None}
            rows.append(row)
    for path in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"):
        (root / path).parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "data/chunk-000/file-000.parquet")
    spans = {"data/chunk_index": [0, 0], "data/file_index": [0, 0]}
    pq.write_table(
        pa.table({"episode_index": [1, 0], "length": [6, 4], "tasks": [["b"], ["a"]], **spans}),
        root / "meta/episodes/chunk-000/file-000.parquet",
    )
    pq.write_table(pa.table({"task_index": [0, 1], names: ["a", "b"]}), root / "meta/tasks.parquet")
    image = {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channel"]}
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": dict.fromkeys(CAMERAS, image),
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def test_a_published_dataset_with_stills_is_turned_upright(tmp_path):
    write_foreign(tmp_path)
    data = load_demonstrations(tmp_path, 8, stride=2)
    assert data.demo.tolist() == [0, 0, 1, 1, 1] and data.instructions == ("a", "b")
    for row, (t, episode) in enumerate([(0, 0), (2, 0), (0, 1), (2, 1), (4, 1)]):
        for camera in range(2):
            np.testing.assert_array_equal(data.images[row, camera], scene(camera, t, episode))


def test_videos_in_av1_are_read_as_lerobot_writes_them(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "libero_object")
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    options = [
        "-c:v",
        "libaom-av1",
        "-cpu-used",
        "8",
        "-crf",
        "20",
        "-g",
        "2",
        "-pix_fmt",
        "yuv420p",
    ]
    for video in (tmp_path / "libero_object").rglob("*.mp4"):
        source = video.rename(video.with_suffix(".h264.mp4"))
        subprocess.run([exe, "-loglevel", "error", "-i", source, *options, video], check=True)
        source.unlink()
        assert b"av01" in video.read_bytes()
    known = load_demonstrations(dataset, 8).images.astype(int)
    found = load_demonstrations(tmp_path / "libero_object", 8).images
    away = np.abs(known[:, None] - found[None]).mean((2, 3, 4, 5))
    assert len(found) == 21 and away.argmin(1).tolist() == list(range(21))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_glimpse_of_a_demonstration_finds_its_frames_in_the_video(demos, tmp_path, mirrored):
    out = tmp_path / "libero_object"
    lerobot.export(demos, out, mirrored=mirrored)
    assert models_lerobot.outline(out) == {"pick up the milk": [5, 9], "pick up the soup": [7]}
    for instruction, demo, steps, episode in (
        ("pick up the milk", 0, (0, 2, 4), 0),
        ("pick up the milk", 1, (0, 4, 8), 1),
        ("pick up the soup", 0, (0, 3, 6), 2),
    ):
        shots = models_lerobot.glimpse(out, instruction, demo).astype(int)
        every = [scene(0, t, episode).astype(int) for t in range(9)]
        nearest = [np.argmin([np.abs(shot - other).mean() for other in every]) for shot in shots]
        assert tuple(nearest) == steps
    with pytest.raises(IndexError):
        models_lerobot.glimpse(out, "pick up the soup", 1)


def test_a_glimpse_of_stills_and_of_hdf5_is_exact(demos, tmp_path):
    write_foreign(tmp_path)
    assert models_lerobot.outline(tmp_path) == {"a": [4], "b": [6]}
    expected = np.stack([scene(0, t, 1) for t in (0, 3, 5)])
    np.testing.assert_array_equal(models_lerobot.glimpse(tmp_path, "b", 0), expected)
    expected = np.stack([scene(0, t, 1) for t in (0, 4, 8)])
    np.testing.assert_array_equal(libero_hdf5.glimpse(demos / "milk_demo.hdf5", 1), expected)
    with pytest.raises(IndexError):
        libero_hdf5.glimpse(demos / "milk_demo.hdf5", 2)


# -- bad input -------------------------------------------------------------------------------------


def damage_version(root):
    text = (root / "meta/info.json").read_text().replace('"v3.0"', '"v2.1"')
    (root / "meta/info.json").write_text(text)


def damage_info(root):
    (root / "meta/info.json").write_text("[1, 2]")


def damage_data(root):
    file = root / "data/chunk-000/file-000.parquet"
    file.write_bytes(file.read_bytes()[:-200])


def damage_video(root):
    (root / f"videos/{CAMERAS[1]}/chunk-000/file-001.mp4").unlink()


def damage_length(root):
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["length"] = 90
    pq.write_table(pa.Table.from_pylist(rows), file)


def damage_features(root):
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"][CAMERAS[1]]
    (root / "meta/info.json").write_text(json.dumps(info))


def damage_path(root):
    text = (root / "meta/info.json").read_text().replace("data/chunk", "../../data/chunk")
    (root / "meta/info.json").write_text(text)


def damage_template(root):
    write_info(root, video_path=None)


def damage_rate(root):
    write_info(root, fps="twenty")


def damage_kind(root):
    write_info(root, features=[])


def write_info(root, **changes):
    info = json.loads((root / "meta/info.json").read_text()) | changes
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_version, "LeRobotDataset v2.1; convert it to v3.0"),
        (damage_info, "info.json is no JSON object"),
        (damage_data, "unreadable or truncated"),
        (damage_video, "file-001.mp4 .* is missing"),
        (damage_length, "not the rows that meta/episodes announces"),
        (damage_features, "'observation.images.image2' is missing"),
        (damage_path, "outside of the folder"),
        (damage_template, "no LeRobot dataset of LIBERO"),
        (damage_rate, "no LeRobot dataset of LIBERO"),
        (damage_kind, "no LeRobot dataset of LIBERO"),
    ],
)
def test_a_bad_dataset_is_one_clear_line(dataset, tmp_path, damage, words):
    root = tmp_path / "set"
    shutil.copytree(dataset, root)
    damage(root)
    with pytest.raises(ValueError, match=words) as caught:
        load_demonstrations(tmp_path, 8)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_an_export_that_fails_leaves_nothing(demos, tmp_path, capsys):
    broken = tmp_path / "demos"
    write_hdf5(broken / "a_demo.hdf5", "a", (4,))
    write_hdf5(broken / "b_demo.hdf5", "b", (4,))
    with h5py.File(broken / "b_demo.hdf5", "r+") as h5:
        h5["data/demo_0/actions"][2] = np.nan
    assert lerobot.main([str(broken), str(tmp_path / "out")]) == 2
    assert "b_demo.hdf5: /data/demo_0: actions hold values" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [broken]


def test_where_nothing_can_be_written(demos, dataset, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (dataset, tmp_path / "file", tmp_path / "file" / "under"):
        assert lerobot.main([str(demos), str(out)]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and str(out) in error[0]


def test_a_full_disk(demos, tmp_path):
    """No file may grow beyond 30 kB: the tables fit, the videos of noise don't."""
    noise = tmp_path / "demos/noise_demo.hdf5"
    write_hdf5(noise, "a", (60,))
    with h5py.File(noise, "r+") as h5:
        pictures = h5["data/demo_0/obs/agentview_rgb"]
        pictures[:] = np.random.default_rng(0).integers(0, 256, pictures.shape, np.uint8)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
        "from studio import lerobot; sys.exit(lerobot.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(noise.parent), str(tmp_path / "out")]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert ended.returncode == 2
    assert "is the disk full?" in ended.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [noise.parent]


def test_an_export_that_is_interrupted_says_so(demos, tmp_path, monkeypatch):
    def some(self, demo):
        yield demo.images[:4]
        raise KeyboardInterrupt

    monkeypatch.setattr(lerobot._Dataset, "_blocks", some)
    with pytest.raises(KeyboardInterrupt):
        lerobot.export(demos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_killed_export_leaves_nothing_that_is_read(tmp_path):
    demos, root = tmp_path / "demos", tmp_path / "out"
    for task in range(4):
        write_hdf5(demos / f"{task}_demo.hdf5", f"task {task}", (20,))
    code = (  # it dies as soon as its second file is open
        "import os, sys, studio.lerobot as lerobot\n"
        "class Deadly(lerobot._Files):\n"
        "    def __init__(self, folder, schema, index, *rest):\n"
        "        super().__init__(folder, schema, index, *rest)\n"
        "        if index: os.kill(os.getpid(), 9)\n"
        "lerobot._Files = Deadly\n"
        "lerobot.main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, str(demos), str(root / "set")]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert any(root.rglob("*.parquet")) and not (root / "set").exists()
    with pytest.raises(ValueError, match="no demonstrations here"):
        load_demonstrations(root, 8)
    assert lerobot.export(demos, root / "set")["total_episodes"] == 4


def test_both_formats_under_one_folder(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "a")
    write_hdf5(tmp_path / "b" / "milk_demo.hdf5", "pick up the milk", (3,))
    data = load_demonstrations(tmp_path, 8)
    assert data.instructions == ("pick up the milk", "pick up the soup")
    assert np.bincount(data.demo).tolist() == [5, 9, 7, 3] and data.task[-1] == 0


def test_the_renderer_goes_along_and_two_do_not(demos, tmp_path, capsys):
    shutil.copytree(demos, tmp_path / "demos")
    for file in (tmp_path / "demos").iterdir():
        with h5py.File(file, "r+") as h5:
            h5["data"].attrs["pixels"] = "fast"
    lerobot.export(tmp_path / "demos", tmp_path / "out")
    assert load_demonstrations(tmp_path / "out", 8).renderer() == "fast"
    with h5py.File(tmp_path / "demos" / "milk_demo.hdf5", "r+") as h5:
        del h5["data"].attrs["pixels"]
    assert lerobot.main([str(tmp_path / "demos"), str(tmp_path / "mixed")]) == 2
    assert "two renderers" in capsys.readouterr().err and not (tmp_path / "mixed").exists()


def test_odd_pictures_make_no_video(tmp_path, capsys):
    write_hdf5(tmp_path / "a_demo.hdf5", "a", (4,))
    with h5py.File(tmp_path / "a_demo.hdf5", "r+") as h5:
        for key in ("agentview_rgb", "eye_in_hand_rgb"):
            del h5[f"data/demo_0/obs/{key}"]
            h5[f"data/demo_0/obs/{key}"] = np.zeros((4, 31, 31, 3), np.uint8)
    assert lerobot.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "side 31" in capsys.readouterr().err

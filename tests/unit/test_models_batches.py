"""What a training step sees: the right rows, pictures augmented and mismatched, cached features."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_models_data import distinct_samples

from models import augment as augmentation
from models import batches, features
from models.augment import augment
from models.batches import Batches
from models.config import SamplerConfig, preset
from models.data import training_rows
from models.features import FeatureCache
from models.losses import training_loss
from models.model import EBVLA
from models.normalize import Statistics
from models.paraphrase import paraphrases
from models.ranks import Ranks
from models.schedule import Draw, TrainConfig
from models.text import MiniLMText


@pytest.fixture
def data(tmp_path):
    return distinct_samples(tmp_path)


def batches_of(data, **changes) -> Batches:
    config = TrainConfig(**{"steps": 1, "batch_size": 8, "wordings": 8} | changes)
    rows, _ = training_rows(data, config)
    statistics = Statistics.fit(data.actions[rows].reshape(-1, 7), data.proprio[rows])
    return Batches(data, rows, statistics, config, MiniLMText(), Ranks("cpu"))


def assert_of(batch, rows, data, statistics):
    """State and actions are those of these rows, in the scales of training."""
    assert np.array_equal(batch.proprio, statistics.standardize(data.proprio[rows]))
    assert np.array_equal(batch.actions, statistics.normalize(data.actions[rows]))


@pytest.fixture
def as_they_are(monkeypatch):
    """Pictures that are not augmented."""
    monkeypatch.setattr(batches, "augment", lambda images, *_: images)


def test_batches_visit_every_sample_once_an_epoch(data):
    found = batches_of(data, val_fraction=0, batch_size=4)
    seen = [row for step in range(6) for row in found.rows(step)]  # 24 samples
    assert sorted(seen) == list(range(24))


def test_a_batch_holds_what_belongs_together(data):
    found, rows = batches_of(data), np.array([17, 3, 3, 22, 8])  # of both tasks
    batch = found.plain(rows)
    assert np.array_equal(batch.images, data.images[rows])
    assert_of(batch, rows, data, found.statistics)
    assert torch.equal(batch.text, MiniLMText()(data.instructions)[0][data.task[rows]])


def test_a_training_sample_hears_its_own_instruction_in_some_words(data, as_they_are):
    found, said = batches_of(data), set()
    words = [paraphrases(instruction, 8) for instruction in data.instructions]
    for step in range(3):
        rows, batch = found.rows(step), found.training(step, seed=step)
        assert np.array_equal(batch.images, data.images[rows])
        assert_of(batch, rows, data, found.statistics)
        for text, task in zip(batch.text, data.task[rows], strict=True):
            wording = (MiniLMText()(words[task])[0] == text).all((1, 2)).nonzero()
            assert len(wording)
            said.add((int(task), int(wording[0])))
    assert {(0, 0), (1, 0)} < said


@pytest.mark.parametrize("cached", [False, True])
def test_a_mismatched_picture_is_the_fixed_cameras_at_another_moment_of_the_task(
    data, as_they_are, cached
):
    found = batches_of(data, contrast=0.2)
    if cached:  # features that are the pictures
        found.features = SimpleNamespace(draw=lambda rows, *_: torch.from_numpy(data.images[rows]))
    learnt, _ = training_rows(data, TrainConfig(steps=1))
    for step in range(8):
        rows, mismatched = found.rows(step)[:2], found.training(step, 0).mismatched.numpy()
        assert np.array_equal(mismatched[:, 1], data.images[rows, 1])
        for row, picture in zip(rows, mismatched[:, 0], strict=True):
            (other,) = np.flatnonzero((data.images[:, 0] == picture).all((1, 2, 3)))
            assert other != row and data.task[other] == data.task[row]
            assert other in learnt


def test_a_sample_without_another_of_its_task_keeps_its_own_moment(data):
    rows, among = np.array([3, 3, 15]), np.array([3, 3, 12, 15])
    assert data.other_moments(rows, among, np.random.default_rng(0)).tolist() == [3, 3, 12]


def test_a_mismatched_context_differs_in_its_pictures_alone(data):
    """With the samples' own pictures it costs what a coin flip does."""
    torch.manual_seed(0)
    model, batch = EBVLA(preset("debug")), batches_of(data, contrast=1.0).training(0, 0)

    def contrast(mismatched):
        some, chance = replace(batch, mismatched=mismatched), torch.Generator().manual_seed(0)
        draw, sampler = Draw(1, 0.2, 1), SamplerConfig()
        return training_loss(model, some, draw, sampler, chance, contrast=1.0)[1]["contrast"]

    own = contrast(batch.images[:2]) - contrast(None)
    assert own == pytest.approx(math.log(2), abs=1e-6)
    assert abs(contrast(batch.mismatched) - contrast(None) - math.log(2)) > 1e-4


# -- augmentation -------------------------------------------------------------------------------


def test_augmentation_keeps_shape_and_repeats_with_its_seed():
    images = torch.randint(0, 255, (3, 2, 32, 32, 3), dtype=torch.uint8)
    a, b = (augment(images, torch.Generator().manual_seed(4)) for _ in range(2))
    assert a.shape == images.shape and a.dtype == torch.uint8 and torch.equal(a, b)
    assert not torch.equal(a, images)
    flat = torch.full_like(images, 128)
    assert (augment(flat, torch.Generator().manual_seed(0)).float() - 128).abs().max() <= 26


def test_the_fixed_camera_is_shifted_less_than_the_wrists(monkeypatch):
    """Every pixel's colour is its place."""
    monkeypatch.setattr(augmentation, "BRIGHTNESS", 0.0)
    monkeypatch.setattr(augmentation, "CONTRAST", 0.0)
    place = torch.arange(64, dtype=torch.uint8)
    picture = torch.stack([*torch.meshgrid(place, place, indexing="ij"), torch.zeros(64, 64)], -1)
    images = picture.byte().expand(64, 2, 64, 64, 3)
    out = augment(images, torch.Generator().manual_seed(0)).int()
    shifts = out[:, :, 32, 32, :2] - 32  # down and right
    for sample, by_view in zip(out, shifts, strict=True):
        for view, (down, right) in zip(sample, by_view, strict=True):
            rows, columns = ((place.int() + shift).clamp(0, 63) for shift in (down, right))
            assert torch.equal(view[..., 0], rows[:, None].expand(64, 64))
            assert torch.equal(view[..., 1], columns[None].expand(64, 64))
    for view, reach in enumerate((1, 2)):  # at 64 pixels
        moves = {tuple(move) for move in shifts[:, view].tolist()}
        each_way = set(range(-reach, reach + 1))
        assert {down for down, _ in moves} == each_way == {right for _, right in moves}
        assert len(moves) > len(each_way)  # the two ways are drawn apart


def test_both_views_of_a_sample_are_lit_alike_and_samples_are_not():
    levels = torch.tensor([64, 128, 192], dtype=torch.uint8)
    out = augment(levels.expand(16, 2, 8, 8, 3), torch.Generator().manual_seed(0)).float()
    light = out[:, 0, 0, 0]
    assert torch.equal(out, light[:, None, None, None].expand_as(out))
    contrast, brightness = (light[:, 2] - light[:, 0]) / 128, light[:, 1] - 128
    assert ((contrast - 1).abs() < 0.11).all() and (brightness.abs() <= 26).all()
    assert contrast.std() > 0.03 and brightness.std() > 8


# -- cached features ----------------------------------------------------------------------------


def test_a_sample_has_its_own_copies_of_features_each_augmented(tmp_path, monkeypatch):
    """Features that are the pixels: of sample i, seen in the n-th call of augment, 8 i + n."""
    monkeypatch.setattr(features, "BATCH", 6)
    calls = iter(range(8))
    monkeypatch.setattr(features, "augment", lambda images, _: images + next(calls))
    vision = torch.nn.Module()
    vision.features = True
    backbone = SimpleNamespace(vision=vision, place=torch.zeros(1), features=torch.Tensor.double)
    images = np.arange(0, 256, 8, dtype=np.uint8).repeat(24).reshape(32, 2, 2, 2, 3)
    rows = np.arange(1, 25)
    cache = FeatureCache(tmp_path / "features.npy", rows, 2, seed=0)
    assert cache.fill(backbone, images, "float32")
    asked = np.array([24, 2, 9, 9, 1, 17, 9, 2])
    drawn = cache.draw(asked, torch.Generator().manual_seed(0), slice(None), 8)
    assert (drawn == drawn[:, :1, :1, :1, :1]).all()  # both views of one copy
    sample, call = np.divmod(drawn[:, 0, 0, 0, 0].int().numpy(), 8)
    assert np.array_equal(sample, asked)
    assert np.array_equal(call // 2, np.searchsorted(rows, asked) // 6)
    assert set(call % 2) == {0, 1}
    part = cache.draw(asked[2:5], torch.Generator().manual_seed(0), slice(2, 5), 8)
    assert torch.equal(part, drawn[2:5])

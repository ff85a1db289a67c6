"""A checkpoint of the debug preset: random weights, the whole code path."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import TrainingRecord, save_checkpoint
from models.config import preset
from models.model import EBVLA
from models.normalize import Statistics


@pytest.fixture(scope="session")
def debug_checkpoint(tmp_path_factory) -> Path:
    """A folder that `Policy.from_pretrained` reads."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    statistics = Statistics.fit(random.uniform(-1, 1, (500, 7)), random.normal(size=(500, 8)))
    record = TrainingRecord(suites=("libero_object",), pixels="fast")
    folder = tmp_path_factory.mktemp("checkpoint") / "debug"
    return save_checkpoint(folder, EBVLA(preset("debug")), statistics, record)

"""Which descents become CUDA graphs; the graphs themselves are tested on a GPU."""

import pytest
import torch

from models import captured
from models.action_head import BoundHead
from models.captured import KEPT, MOST, CapturedDescents
from models.config import SamplerConfig


class Graph:
    def replay(self, inputs):
        return "replayed"


class OnCuda(torch.Tensor):
    """Says that it lies on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.fixture
def captures(monkeypatch) -> list[SamplerConfig]:
    """The samplers whose descent was captured, in order."""
    found = []
    monkeypatch.setattr(captured, "descend", lambda *_: "looped")
    monkeypatch.setattr(captured, "_capture", lambda e, i, n, c: found.append(c) or Graph())
    return found


def asked(descents: CapturedDescents, contexts: int = 1, **sampler: float) -> str:
    pair = torch.zeros(contexts, 1, 1, 1), torch.zeros(contexts, 1, 1, 1)
    start = torch.zeros(contexts, 1, 8, 7).as_subclass(OnCuda)
    return descents(BoundHead(None, [pair]), start, torch.zeros(1), SamplerConfig(**sampler))


def test_what_comes_again_is_captured_once(captures):
    descents = CapturedDescents()
    assert [asked(descents) for _ in range(4)] == ["looped", *["replayed"] * 3]
    assert captures == [SamplerConfig()]
    assert [asked(descents, 2) for _ in range(3)] == ["looped", *["replayed"] * 2]
    assert len(captures) == 2


def test_somebody_who_tries_samplers_out_costs_the_others_nothing(captures):
    descents = CapturedDescents()
    asked(descents), asked(descents)
    for i in range(3 * KEPT):
        assert asked(descents, step_size=0.101 + i / 100) == "looped"
        assert asked(descents) == "replayed"
    assert captures == [SamplerConfig()]


def test_no_more_graphs_are_kept_than_said(captures):
    descents = CapturedDescents()
    for i in range(KEPT + 1):
        for _ in range(2):
            asked(descents, step_size=0.1 + i / 100)
    assert len(captures) == KEPT + 1
    assert asked(descents, step_size=0.1) == "looped"  # the oldest had to go
    assert asked(descents, step_size=0.1 + KEPT / 100) == "replayed"


def test_large_batches_and_early_stops_are_looped(captures):
    descents = CapturedDescents()
    for _ in range(3):
        assert asked(descents, MOST + 1) == "looped"
        assert asked(descents, grad_cutoff=0.1) == "looped"
    assert not captures


@pytest.mark.parametrize(
    ("error", "later"),
    [(torch.OutOfMemoryError("full"), "replayed"), (RuntimeError("no"), "looped")],
)
def test_a_capture_that_fails_is_looped_and_memory_may_come_back(
    captures, monkeypatch, error, later
):
    def fails(*_):
        raise error

    works = captured._capture
    monkeypatch.setattr(captured, "_capture", fails)
    descents = CapturedDescents()
    assert [asked(descents) for _ in range(2)] == ["looped"] * 2
    monkeypatch.setattr(captured, "_capture", works)
    assert [asked(descents) for _ in range(2)] == ["looped", later]

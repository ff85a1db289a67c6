"""Which descents become CUDA graphs; the graphs themselves are tested on a GPU."""

from dataclasses import replace

import pytest
import torch

from models import captured
from models.action_head import BoundHead
from models.captured import KEPT, MOST, CapturedDescents
from models.config import SamplerConfig
from models.mcmc import descend


class Graph:
    """Stands for a captured graph: computes anew from what its buffers would be given."""

    stream = "its own"

    def __init__(self, config):
        self.config = config

    def replay(self, inputs):
        *pairs, start, noise = inputs
        energy = Quadratic(list(zip(pairs[::2], pairs[1::2], strict=True)))
        return replace(descend(energy, start, noise, self.config), updates=REPLAYED[: len(start)])


class Quadratic(BoundHead):
    """e_t = |a_t - k|² with a k per context, instead of a Transformer's."""

    def __init__(self, keys_values):
        super().__init__(None, keys_values)

    def __call__(self, actions):
        return (actions - self._keys_values[0][0]).square().sum(-1)

    def map(self, change):
        return Quadratic([(change(k), change(v)) for k, v in self._keys_values])


REPLAYED = torch.full((16,), -1)


class OnCuda(torch.Tensor):
    """Says that it lies on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.fixture
def captures(monkeypatch) -> list[SamplerConfig]:
    """The samplers whose descent was captured, in order."""
    found = []
    monkeypatch.setattr(
        captured, "_capture", lambda e, i, n, c, stream: found.append(c) or Graph(c)
    )
    return found


def asked(descents: CapturedDescents, contexts: int = 1, **sampler: float) -> str:
    """Whether such a descent was looped or replayed; its numbers are the loop's."""
    config, shape = SamplerConfig(**sampler), (contexts, 1, 8, 7)
    random = torch.Generator().manual_seed(contexts)
    energy = Quadratic([(torch.randn(contexts, 1, 1, 7, generator=random), torch.zeros(1))])
    energy = energy.map(lambda t: t.expand(contexts, *t.shape[1:]))
    start = torch.randn(shape, generator=random)
    noise = torch.randn(config.steps, *shape, generator=random)
    got = descents(energy, start.as_subclass(OnCuda), noise, config)
    wanted = descend(energy, start, noise, config)
    for name in ("actions", "timestep_energies", "grad_norms", "step_sizes"):
        torch.testing.assert_close(
            getattr(got, name).as_subclass(torch.Tensor), getattr(wanted, name)
        )
    return "replayed" if (got.updates == -1).all() else "looped"


def test_what_comes_again_is_captured_once(captures):
    descents = CapturedDescents()
    assert [asked(descents) for _ in range(4)] == ["looped", *["replayed"] * 3]
    assert captures == [SamplerConfig()]
    assert [asked(descents, 3) for _ in range(3)] == ["looped", *["replayed"] * 2]
    assert asked(descents, 4) == "replayed"  # 3 are filled up to 4
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
        assert asked(descents, MOST // 8 + 1) == "looped"
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

"""The expert that takes over in mid-episode, wherever somebody else has led."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from studio.sim.expert import Expert
from studio.sim.expert_motion import Actions
from studio.sim.foresight import Latecomer
from studio.sim.libero_sim import LiberoSim


class _Successor(Latecomer):
    """A latecomer that drives: once under way it works on fixtures as the expert does."""

    _under_way = False

    def act(self) -> np.ndarray:
        action = super().act()
        self._under_way = True
        return action

    def _achieve(self, predicate: str, name: str, target: str | None = None) -> Actions:
        who = Expert if self._under_way else Latecomer
        return (yield from who._achieve(self, predicate, name, target))


def successor(sim: LiberoSim, last_action: np.ndarray, rng: np.random.Generator) -> Expert:
    """The expert from the present moment: in mid-motion where it can, from the start elsewhere."""
    with suppress(ValueError):
        _Successor(sim, last_action).act()  # has an answer
        return _Successor(sim, last_action)
    return Expert(sim, rng)

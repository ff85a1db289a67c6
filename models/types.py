"""Values that cross between the model and the studio: NumPy at the seams, no torch import.

Shape letters: K MCMC updates, N chains, H chunk horizon, D action dimensions, S image side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.config import Pixels, SamplerConfig

CAMERAS = ("agentview", "wrist")
ACTION_NAMES = ("Δx", "Δy", "Δz", "Δroll", "Δpitch", "Δyaw", "gripper")


@dataclass(frozen=True, slots=True)
class View:
    """How a policy's pictures are made: the renderer, and their side S."""

    pixels: Pixels = "fast"
    side: int = 128


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees at one control step.

    images: uint8 RGB [S, S, 3] per camera name of `CAMERAS`, upright.
    proprio: float32 [8]: end-effector position (m), axis-angle (rad), two gripper joints (m).
    """

    images: Mapping[str, np.ndarray]
    proprio: np.ndarray
    instruction: str

    def same(self, other: Observation) -> bool:
        """Shows and asks the same, as a request about it that comes again over a network does."""
        return self is other or (
            self.instruction == other.instruction
            and np.array_equal(self.proprio, other.proprio)
            and self.images.keys() == other.images.keys()
            and all(np.array_equal(self.images[c], other.images[c]) for c in self.images)
        )


@dataclass(frozen=True, slots=True)
class DescentTrace:
    """K updates of N chains (EB-VLA Eq. 2-3).

    energies[k] = E(actions[k], C): the final point is scored too, so there are K + 1 energies.
    """

    actions: np.ndarray  # float32 [K+1, N, H, D], normalised
    energies: np.ndarray  # float32 [K+1, N]
    timestep_energies: np.ndarray  # float32 [K+1, N, H], e_t; their mean over H is `energies`
    grad_norms: np.ndarray  # float32 [K, N], L2 norm of the gradient before clipping
    step_sizes: np.ndarray  # float32 [K, N, H], α·exp(e_t/τ)


@dataclass(frozen=True, slots=True)
class Plan:
    """One action chunk and everything that explains it.

    `chain` is the chain of lowest final energy; `actions` are its final actions, denormalised to
    the environment's own scale. `readout` is the regression read-out of the latent queries
    (normalised) and `energy_gap` = E(readout, C) - E(a^(K), C); both None without a read-out.
    `context_distance`: how far C is from those of training (`models.contexts`), None if unknown.
    `round_trip_s`: request to reply where a policy server planned, None where this process did.
    """

    actions: np.ndarray  # float32 [H, D], environment scale, within [-1, 1]
    trace: DescentTrace | None  # None of a head without an energy
    chain: int
    sampler: SamplerConfig
    seed: int
    observation: Observation
    latency_s: float
    readout: np.ndarray | None = None  # float32 [H, D], normalised
    energy_gap: float | None = None
    context_distance: float | None = None
    round_trip_s: float | None = None

    @property
    def initial_energy(self) -> float | None:
        """E(a^(0), C) of the chosen chain; None of a head without an energy."""
        return None if self.trace is None else float(self.trace.energies[0, self.chain])

    @property
    def final_energy(self) -> float | None:
        """E(a^(K), C) of the chosen chain: EB-VLA's anomaly score (§III-C), or None."""
        return None if self.trace is None else float(self.trace.energies[-1, self.chain])


@dataclass(frozen=True, slots=True)
class LandscapeSlice:
    """E over two dimensions of one action of the chunk, all else held (EB-VLA Fig. 2)."""

    timestep: int
    dims: tuple[int, int]
    u: np.ndarray  # float32 [G], values of dims[0], normalised
    v: np.ndarray  # float32 [G], values of dims[1], normalised
    energies: np.ndarray  # float32 [G, G], energies[i, j] = E at (u[j], v[i])
    centre: np.ndarray  # float32 [H, D], the chunk that the slice passes through, normalised

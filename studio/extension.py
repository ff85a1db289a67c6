"""EB-VLA's extension of openpi's protocol, both ways: what is asked and what is answered.

A request that holds a map under `eb_vla` asks for more than actions; `studio.serve` lists the kinds
and their fields. Arrays are float32; the fields of a trace and of a slice are those of
`DescentTrace` and `LandscapeSlice`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

from models.checkpoint import Calibration, CheckpointInfo, TrainingRecord
from models.config import ModelConfig, SamplerConfig
from models.normalize import Statistics
from models.policy import Policy
from models.types import ACTION_NAMES, DescentTrace, LandscapeSlice, Observation, Plan
from studio.openpi import KEYS, STATE_SIZE, BadRequest, numbers, to_observation
from studio.policies import calibration, describe

EXTENSION = "eb_vla"
MAX_CHUNKS = 4096  # whose energies are asked for at once
FIELDS = {  # of each kind
    "plan": {"seed", "sampler", "trace"},
    "explore": {"seed", "sampler"},
    "energies": {"actions"},
    "slice_2d": {"centre", "timestep", "dims", "span", "grid"},
}


@dataclass(frozen=True, slots=True)
class Query:
    """What one request asks about an observation.

    `asked` holds the kind's own fields; None where openpi's client wants actions and no more.
    """

    observation: Observation
    kind: str = "plan"
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    seed: int = 0
    asked: Mapping[str, Any] | None = None


def parse(request: object) -> Query:
    """A request as it came. Raises BadRequest that says what it lacks."""
    if not isinstance(request, dict):
        raise BadRequest(f"a request is a map, not {type(request).__name__}")
    if unknown := sorted(str(key) for key in request.keys() - KEYS - {EXTENSION}):
        raise BadRequest(f"the request has the unknown key {unknown[0]!r}")
    asked = request.get(EXTENSION, {})
    if not isinstance(asked, dict):
        raise BadRequest(f"'{EXTENSION}' must be a map")
    kind = asked.get("kind", "plan")
    if not isinstance(kind, str) or kind not in FIELDS:
        kinds = ", ".join(FIELDS)
        raise BadRequest(f"'{EXTENSION}': kind must be one of {kinds}, not {short(kind)}")
    fields = {name: value for name, value in asked.items() if name != "kind"}
    if unknown := sorted(str(name) for name in fields.keys() - FIELDS[kind]):
        raise BadRequest(f"'{EXTENSION}': {kind} has no field {unknown[0]!r}")
    sampler, seed = fields.pop("sampler", {}), whole("seed", fields.pop("seed", 0))
    if not 0 <= seed < 2**63:
        raise BadRequest("'seed' must lie in [0, 2**63)")
    if not isinstance(fields.get("trace", False), bool):
        raise BadRequest("'trace' must be true or false")
    own = fields if EXTENSION in request else None
    return Query(to_observation(request), kind, _sampler(sampler), seed, own)


def _sampler(fields: object) -> SamplerConfig:
    try:
        sampler = SamplerConfig(**fields)
    except TypeError:
        names = ", ".join(SamplerConfig.__slots__)
        raise BadRequest(f"'sampler' must be a map of {names}") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return dataclasses.replace(sampler, steps=int(sampler.steps), chains=int(sampler.chains))


def whole(name: str, value: object) -> int:
    """A whole number. Raises BadRequest."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name!r} must be a whole number, not {short(value)}")
    return value


def plan_reply(plan: Plan, query: Query) -> dict[str, Any]:
    """`actions` [H, 7] in environment scale, as openpi replies; the rest for who asked for it."""
    reply: dict[str, Any] = {"actions": plan.actions}
    if query.asked is None:
        return reply
    told = {
        "chain": plan.chain,
        "initial_energy": plan.initial_energy,
        "final_energy": plan.final_energy,
        "energy_gap": plan.energy_gap,
        "context_distance": plan.context_distance,
        "readout": plan.readout,
    }
    if query.asked.get("trace") and plan.trace is not None:
        told["trace"] = fields_of(plan.trace)
    return reply | {EXTENSION: told}


def answer(policy: Policy, query: Query, stop: Callable[[], bool]) -> dict[str, Any]:
    """What a kind other than `plan` asks for. Raises BadRequest, InterruptedError on `stop()`."""
    obs, asked = query.observation, query.asked
    shape = (policy.config.horizon, policy.config.action_dim)
    if query.kind == "explore":
        found = {"trace": fields_of(policy.explore(obs, query.sampler, query.seed, stop))}
    elif query.kind == "energies":
        actions = numbers("actions", asked.get("actions"), (None, *shape))
        if len(actions) > MAX_CHUNKS:
            raise BadRequest(f"'actions' must hold at most {MAX_CHUNKS} chunks, not {len(actions)}")
        found = dict(
            zip(("energies", "timestep_energies"), policy.energies(obs, actions, stop), strict=True)
        )
    else:
        centre = numbers("centre", asked.get("centre"), shape)
        found = {
            "slice": fields_of(policy.slice_2d(obs, centre, **_slice_options(asked), stop=stop))
        }
    return {EXTENSION: found}


def _slice_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, as they came; `models.landscape` knows which make sense."""
    options: dict[str, Any] = {}
    for name in ("timestep", "grid"):
        if name in asked:
            options[name] = whole(name, asked[name])
    for name, check in (("dims", whole), ("span", _number)):
        if name in asked:
            value = asked[name] if isinstance(asked[name], list) else [asked[name]] * 2
            options[name] = tuple(check(name, part) for part in value)
    return options


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{name!r} must be a number, not {short(value)}")
    return float(value)


def fields_of(value: DescentTrace | LandscapeSlice) -> dict[str, Any]:
    """A dataclass as a map, its arrays as they are."""
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


def trace_of(fields: Mapping[str, Any]) -> DescentTrace:
    """The trace that `fields_of` made a map of."""
    return DescentTrace(**fields)


def slice_of(fields: Mapping[str, Any]) -> LandscapeSlice:
    """The slice that `fields_of` made a map of."""
    return LandscapeSlice(**{**fields, "dims": tuple(fields["dims"])})


@dataclass(frozen=True, slots=True)
class Served:
    """What a server tells of its policy before anything is asked: its first message."""

    config: ModelConfig
    checkpoint: CheckpointInfo
    statistics: Statistics
    calibration: Calibration | None

    @classmethod
    def read(cls, metadata: object, url: str) -> Served:
        """From `metadata()`. Raises ValueError when another kind of policy is served."""
        try:
            told = metadata[EXTENSION]
            training = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in told["checkpoint"]["training"].items()
            }
            info = {**told["checkpoint"], "training": TrainingRecord(**training), "server": url}
            known = told["calibration"]
            return cls(
                ModelConfig(**told["config"]),
                CheckpointInfo(**info),
                Statistics.from_json(told["statistics"]),
                Calibration(**known) if known else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{url} serves no EB-VLA of this version; start one there with "
                "python -m studio.serve"
            ) from None


def check_robot(config: ModelConfig) -> None:
    """Raises ValueError unless the state and the actions are those that the protocol speaks of."""
    if (config.proprio_dim, config.action_dim) != (STATE_SIZE, len(ACTION_NAMES)):
        raise ValueError(
            f"the checkpoint is for another robot: {config.proprio_dim} numbers of state and "
            f"{config.action_dim} of an action, not {STATE_SIZE} and {len(ACTION_NAMES)}"
        )


def metadata(policy: Policy) -> dict[str, Any]:
    """The first message: what is served, under the keys that `Served.read` looks for."""
    name = str(describe(policy)["name"])
    info = dataclasses.replace(policy.checkpoint, path=name, server="")
    return {
        "policy": name,
        "horizon": policy.config.horizon,
        "action_dim": policy.config.action_dim,
        EXTENSION: {
            "config": dataclasses.asdict(policy.config),
            "checkpoint": dataclasses.asdict(info),
            "statistics": policy.statistics.to_json(),
            "calibration": calibration(policy),
        },
    }

"""What an evaluation runs: episodes that differ from a nominal one in a single thing, or none.

nominal           every task from every initial state
from_other_views  the same scenes seen from LIBERO-Plus views
in_other_words    told in LIBERO-PRO's paraphrases
for_other_goals   asked for another task's goal
perturbed         any of these, or those of `studio.perturbations`, by name
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from studio import perturbations
from studio.events import Perturbation, SceneSpec
from studio.sim import catalog
from studio.trial import NOMINAL, Trial


def nominal(suite: str, tasks: Sequence[int], inits: Sequence[int], seed: int = 0) -> list[Trial]:
    """Every task from every initial state. Raises ValueError for what does not exist."""
    trials = [Trial(SceneSpec(suite, task, init, seed)) for init in inits for task in tasks]
    for trial in trials:
        catalog.check_scene(trial.scene)
    return trials


def in_other_words(trials: Sequence[Trial]) -> list[Trial]:
    """The same scenes with LIBERO-PRO's paraphrases. Raises ValueError where there are none."""
    return [
        Trial(t.scene, "language", instruction=catalog.paraphrase(t.scene.suite, t.scene.task))
        for t in trials
    ]


def for_other_goals(trials: Sequence[Trial]) -> list[Trial]:
    """The same scenes asked for their other possible goals in turn.

    Raises ValueError when no scene has any.
    """
    changed = []
    for t in trials:
        if goals := catalog.other_goals(t.scene.suite, t.scene.task):
            goal = goals[t.scene.init % len(goals)]
            changed.append(Trial(replace(t.scene, goal=goal), "goal"))
    if not changed:
        raise ValueError("the scenes of this suite can't be asked for one another's goals")
    return changed


def from_other_views(
    trials: Sequence[Trial], count: int | None, difficulties: Sequence[int]
) -> list[Trial]:
    """`count` LIBERO-Plus views (None: all) drawn evenly over the trials' tasks, in fixed order.

    The k-th view of a task is seen from its k-th initial state: each perturbed episode has a
    nominal one of the same scene beside it. Raises ValueError without views.
    """
    left: dict[tuple[str, int], list[SceneSpec]] = {}
    for t in trials:
        left.setdefault((t.scene.suite, t.scene.task), []).append(t.scene)
    views = [v for v in catalog.libero_plus_views() if v.difficulty in difficulties]
    views = [v for v in views if (v.suite, v.task) in left]
    if not views:
        raise ValueError("LIBERO-Plus has no such views of these tasks")
    random.Random(0).shuffle(views)
    seen: dict[tuple[str, int], int] = {}
    ordered = []
    for view in views:
        rank = seen[view.suite, view.task] = seen.get((view.suite, view.task), -1) + 1
        scenes = left[view.suite, view.task]
        scene = scenes[rank % len(scenes)]
        moved = Perturbation(view.camera)
        ordered.append((rank, Trial(scene, "camera", moved, difficulty=view.difficulty)))
    return [trial for _, trial in sorted(ordered, key=lambda pair: pair[0])][:count]


def perturbed(
    kind: str,
    trials: Sequence[Trial],
    difficulties: Sequence[int] = perturbations.DIFFICULTIES,
    count: int | None = None,
) -> list[Trial]:
    """Nominal `trials` with one kind of perturbation of `KINDS`; `count` of them at most.

    Raises ValueError for what the kind can't be done to, and for an unknown one.
    """
    if kind == "camera":
        return from_other_views(trials, count, difficulties)
    if kind in perturbations.KINDS:
        found = perturbations.draw(kind, [t.scene for t in trials], difficulties, count)
        for trial in found:
            catalog.check_scene(trial.scene)
        return found
    if kind not in KINDS:
        raise ValueError(f"a perturbation is one of {', '.join(KINDS)}, not {kind!r}")
    changed = {"language": in_other_words, "goal": for_other_goals}.get(kind, list)(trials)
    return changed[:count]


KINDS = (NOMINAL, "camera", *perturbations.KINDS, "language", "goal")

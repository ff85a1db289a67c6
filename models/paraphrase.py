"""An instruction in other words, by synonyms: so that a policy hears what is asked, not a string.

LIBERO has one sentence per task. A frozen sentence encoder puts paraphrases near each other, yet a
model trained on forty points of its space may do anything between them.
"""

from __future__ import annotations

import re

import numpy as np

# Every group's words can stand for one another; longer phrases first.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("pick up", "grab", "take", "lift", "pick", "get", "fetch"),
    ("place", "put", "set", "drop", "lay"),
    ("turn on", "switch on", "start"),
    ("push", "move", "slide", "shove"),
    ("open", "pull open", "slide open"),
    ("close", "shut", "push shut"),
    ("on top of", "on", "onto", "atop"),
    ("inside", "in", "into"),
    ("next to", "beside", "by", "near"),
)
DROP_ARTICLE = 0.4  # chance that a "the" is left out
_WORDS = re.compile(
    r"\b(" + "|".join(sorted(sum(SYNONYMS, ()), key=len, reverse=True)) + r")\b", re.IGNORECASE
)
_GROUP = {word: group for group in reversed(SYNONYMS) for word in group}


def paraphrases(instruction: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """`count` wordings of an instruction, the first as given; repeats where synonyms run out."""
    rng = np.random.default_rng([seed, *instruction.encode()])
    return (instruction, *(_reworded(instruction, rng) for _ in range(count - 1)))


def _reworded(instruction: str, rng: np.random.Generator) -> str:
    def other(match: re.Match[str]) -> str:
        return str(rng.choice(_GROUP[match[0].lower()]))

    words = _WORDS.sub(other, instruction).split()
    return " ".join(w for w in words if w.lower() != "the" or rng.random() >= DROP_ARTICLE)

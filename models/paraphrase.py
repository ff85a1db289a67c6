"""An instruction in other words: so that a policy hears what is asked, not a string.

LIBERO has one sentence per task. A frozen sentence encoder puts paraphrases near each other, yet a
model trained on forty points of its space may do anything between them. So people's ways of saying
the same are made by rule: synonyms, an object taken *from* its place, the cabinet's drawer, and
words left out that the scene makes superfluous.
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
TOWARDS = {"onto", "into"}  # said of where to, never of where from
LEFT_OUT = 0.4  # the chance, of each superfluous word
FROM, POSSESSIVE = 0.5, 0.25  # the chances, where an instruction allows it
_TAKEN_FROM = re.compile(r"^(pick up (?:(?! and ).)*?) (?:on|in) (?=the )", re.IGNORECASE)
_PART_OF = re.compile(
    r"\bthe (front|right|left|\w+ drawer|\w+ compartment) of the ((?:wooden )?\w+)", re.IGNORECASE
)
# A drawer is known without its cabinet; no scene of LIBERO has a black bowl and another one.
_SUPERFLUOUS = re.compile(
    r"(?<=drawer) of the(?: wooden)? cabinet\b|\b(?:the|black|wooden|both)\b|(?<=place )it\b",
    re.IGNORECASE,
)
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
        group = _GROUP[match[0].lower()]
        told_from = match.start() < taken  # "pick up the bowl on the stove": there it is
        return str(rng.choice([w for w in group if w not in TOWARDS] if told_from else group))

    def maybe_nothing(match: re.Match[str]) -> str:
        return "" if rng.random() < LEFT_OUT else match[0]

    if rng.random() < FROM:
        instruction = _TAKEN_FROM.sub(r"\1 from ", instruction)
    if rng.random() < POSSESSIVE:
        instruction = _PART_OF.sub(r"the \2's \1", instruction)
    shorter = _SUPERFLUOUS.sub(maybe_nothing, instruction)
    taken = shorter.find(" and ") if shorter.lower().startswith("pick up") else 0
    return " ".join(_WORDS.sub(other, shorter).split())

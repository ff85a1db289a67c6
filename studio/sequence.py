"""Instructions one after the other: "open the drawer", then "put the bowl in it", then … Pure.

The next one starts when the present one has reached its goal, on request, or after a number of
control steps. Only words that are an instruction of the suite, for a scene that has what they
need, have a goal that can be tested; at others the person or the clock goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_INSTRUCTION = 500  # characters; LIBERO's longest instruction has 118
MAX_ITEMS = 20
MAX_AFTER = 2000  # control steps


def check_instruction(text: str) -> None:
    """Raises ValueError for one that can't be read."""
    if not text.strip():
        raise ValueError("instruction: it is empty; type what the robot should do")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # JSON has them, UTF-8 has not
        raise ValueError("instruction: half a character is in it; type it again")
    if len(text) > MAX_INSTRUCTION:
        raise ValueError(f"instruction: {len(text)} characters; at most {MAX_INSTRUCTION} are read")


@dataclass(frozen=True, slots=True)
class Sequence:
    """`items` in their order, the one `at` is being carried out since step `began`.

    `after`: control steps that an item may take before the next one starts, 0 for any number.
    `tested`: the goal that the simulator tests is that of the present words. Without items it is,
    unless a sequence ended with words that have none. Raises ValueError for what can't be.
    """

    items: tuple[str, ...] = ()
    after: int = 0
    at: int = 0
    began: int = 0
    tested: bool = True

    def __post_init__(self) -> None:
        for item in self.items:
            check_instruction(item)
        if len(self.items) > MAX_ITEMS:
            raise ValueError(f"sequence: {len(self.items)} instructions; at most {MAX_ITEMS}")
        if not 0 <= self.after <= MAX_AFTER:
            raise ValueError(f"sequence: after must lie in [0, {MAX_AFTER}], not {self.after!r}")

    @property
    def text(self) -> str:
        """The present instruction."""
        return self.items[self.at]

    @property
    def more(self) -> bool:
        """True while another instruction follows."""
        return self.at + 1 < len(self.items)

    def reached(self, success: bool) -> bool:
        """Whether the present words are carried out, when the simulator says `success`."""
        return success and self.tested

    def over(self, step: int, success: bool) -> bool:
        """Whether the next instruction starts after control step `step`."""
        late = 0 < self.after <= step - self.began
        return self.more and (self.reached(success) or late)

    def done(self, success: bool) -> bool:
        """Whether the episode ends: the last of its words are carried out."""
        return self.reached(success) and not self.more

    def reworded(self, text: str, tested: bool) -> Sequence:
        """With another text for the present item, `tested` if it has a goal of its own."""
        if not self.items:  # free words are other words for what counts already
            return replace(self, tested=tested or self.tested)
        items = (*self.items[: self.at], text, *self.items[self.at + 1 :])
        return replace(self, items=items, tested=tested)

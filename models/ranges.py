"""Numbers of tasks and of initial states as people write them. No imports: forms read these too."""

MOST = 10_000  # no number is larger
LENGTH = 10_000  # of the text


def parse_range(text: str) -> list[int]:
    """`40-44,47` as [40, 41, 42, 43, 44, 47], each number once. Raises ValueError."""
    if len(text) > LENGTH:
        raise ValueError(f"a range looks like 0-9 or 0,3,5 and has at most {LENGTH} letters")
    numbers: dict[int, None] = {}
    for part in text.split(","):
        ends = part.strip().split("-")
        span = [int(end) for end in ends if end.isdecimal()]
        if len(span) != len(ends) or len(span) > 2 or not span[0] <= span[-1] <= MOST:
            raise ValueError(f"a range looks like 0-9 or 0,3,5, not {text!r}")
        numbers |= dict.fromkeys(range(span[0], span[-1] + 1))
    return list(numbers)

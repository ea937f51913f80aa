"""Pairs of texts, such as premise and hypothesis: one string with a mark between the two, until they are encoded.

So whatever shows, compares or counts texts treats a pair like any other text.
"""

BETWEEN = " [SEP] "


def joined(first: str, second: str) -> str:
    """A pair as one string.

    Raises:
        ValueError: when the first text holds the mark, so that it would be parted there.
    """
    if BETWEEN in first + BETWEEN.rstrip():
        raise ValueError(f"the first text of a pair holds {BETWEEN!r} itself")
    return f"{first}{BETWEEN}{second}"


def parted(text: str) -> tuple[str, str]:
    """The two texts of a pair.

    Raises:
        ValueError: when there is no mark.
    """
    first, mark, second = text.partition(BETWEEN)
    if not mark:
        raise ValueError(f"{text!r} is no pair: the two texts have {BETWEEN!r} between them, with its blanks")
    return first, second


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text are kept: the longer one is cut first (``longest_first`` of the tokenizers library).

    Args:
        first, second: tokens of the two.
        room: tokens that are kept of both together.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)

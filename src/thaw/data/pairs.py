"""Pairs of texts, such as premise and hypothesis, are one string with a mark between them until they are encoded.

So all code that shows, compares or counts texts treats a pair like any other text.
"""

BETWEEN = " [SEP] "


def joined(first: str, second: str) -> str:
    """A pair as one string; a text of blanks alone counts as empty, also for tokenizers to which blanks are tokens.

    Raises:
        ValueError: when the first text contains the mark, so that the pair would be split there, by us or an encoder.
    """
    first, second = (text if text.strip() else "" for text in (first, second))
    if BETWEEN.strip() in first:
        raise ValueError(f"the first text of a pair holds {BETWEEN.strip()!r} itself")
    return f"{first}{BETWEEN}{second}"


def parted(text: str) -> tuple[str, str]:
    """The two texts of a pair.

    Raises:
        ValueError: when there is no mark.
    """
    first, mark, second = text.partition(BETWEEN)
    if not mark:
        raise ValueError(f"{text!r} is not a pair: {BETWEEN!r}, spaces included, must be between the two texts")
    return first, second


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text are kept; the longer one is cut first, as by ``longest_first`` of tokenizers.

    Args:
        first, second: tokens of each text.
        room: tokens that are kept in total.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)

"""Words and entities of texts, and windows of long ones."""

from collections import Counter
from collections.abc import Iterable, Sequence

from thaw.data.spans import joins
from thaw.labels import LabelSet
from thaw.metrics.entities import spans

ACCIDENTS = 2  # words that hold a mark, which say nothing yet


def tagged(labels: LabelSet, tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """What the tags of some words mark: (type, first word, word after the last)."""
    # Tags that mark no spans, such as parts of speech, stand for a word each.
    return spans(tags) if labels.entities else [(tag, i, i + 1) for i, tag in enumerate(tags)]


def joiners(sentences: Iterable[Sequence[str]]) -> str:
    """The punctuation that the words of a data set hold within, more often than they begin or end with it.

    Some data has ``E-404``, ``U.S.`` and ``3.5`` as words, some parts all of them; ``it's`` is mostly two words. A full
    stop at the end does not count against it, since abbreviations have one.
    """
    inside, outside = Counter[str](), Counter[str]()
    for words in sentences:
        for word in words:
            if word.isalnum():
                continue
            inside.update(mark for i, mark in enumerate(word) if joins(word, i))
            if len(word) > 1:
                outside.update([word[0], *word[-1].rstrip(".")])
    return "".join(sorted(mark for mark, count in inside.items() if count > max(outside[mark], ACCIDENTS)))


def split_windows(length: int, room: int) -> list[tuple[int, int]]:
    """Overlapping windows of at most ``room`` tokens that cover a text; a quarter of each is shared."""
    if length <= room:
        return [(0, length)]
    step = max(room - room // 4, 1)
    starts = list(range(0, length - room, step))
    return [(start, start + room) for start in starts] + [(length - room, length)]

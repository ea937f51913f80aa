"""Words and entities of texts."""

from collections import Counter
from collections.abc import Iterable, Sequence

from thaw.data.spans import joins
from thaw.labels import LabelSet
from thaw.metrics.entities import spans

ACCIDENTS = 2  # so few words with a mark inside prove nothing


def tagged(labels: LabelSet, tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """What the tags of some words mark: (type, first word, end)."""
    # Tags that mark no spans, such as parts of speech, mark one word each.
    return spans(tags) if labels.entities else [(tag, i, i + 1) for i, tag in enumerate(tags)]


def joiners(sentences: Iterable[Sequence[str]]) -> str:
    """The punctuation and symbols that occur inside the words of a data set more often than at their edges.

    Some data sets keep ``E-404``, ``U.S.``, ``3.5`` and ``5°C`` as words, others split them; ``it's`` is mostly split.
    A full stop at the end does not count, since abbreviations have one.
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

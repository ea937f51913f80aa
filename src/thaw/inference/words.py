"""From sub-tokens to words and entities, and from long texts to windows."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from thaw.data.spans import is_punctuation
from thaw.labels import LabelSet
from thaw.metrics.entities import spans

ACCIDENTS = 2  # words that hold a mark, which say nothing yet


def tagged(labels: LabelSet, best: np.ndarray) -> list[tuple[str, int, int]]:
    """What the tag ids of some words mark: (type, first word, word after the last)."""
    tags = [labels.names[i] for i in best]
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


def joins(text: str, i: int) -> bool:
    """Whether a character is punctuation between two letters or digits."""
    return 0 < i < len(text) - 1 and is_punctuation(text[i]) and text[i - 1].isalnum() and text[i + 1].isalnum()


def ends_initial(text: str, i: int) -> bool:
    """Whether a character is the full stop behind a single letter, as in ``J. Smith`` and ``U.S.``."""
    return text[i : i + 1] == "." and text[i - 1 : i].isalpha() and not text[max(i - 2, 0) : i - 1].isalnum()


def find_words(
    text: str, words: list[int], offsets: list[tuple[int, int]], joined_by: str = ""
) -> list[tuple[int, int]]:
    """The first and the last sub-token of each word.

    Words end at blanks and at punctuation. SentencePiece tokenizers cut at blanks only and would count the full stop
    to the name before it, unlike the words they are trained on; the others cut like this themselves. Byte-level
    tokenizers take a second blank for a word, which it is not.

    Args:
        words: the word that each sub-token belongs to, as the tokenizer sees it.
        offsets: the characters of each sub-token.
        joined_by: punctuation at which words do not end, as `joiners` finds it.
    """
    firsts = []
    for i, (start, _) in enumerate(offsets):
        if i > 0 and any(joins(text, at) and text[at] in joined_by for at in (start, start - 1)):
            continue
        if i > 0 and "." in joined_by and ends_initial(text, start):
            continue
        if i > 0 and words[i] == words[i - 1]:
            before, end = offsets[i - 1]
            # Bytes of one character have the same offsets; a blank alone is no word yet.
            if start < end or not text[before:end].strip():
                continue
            if not (is_punctuation(text[start : start + 1]) or is_punctuation(text[end - 1 : end])):
                continue
        firsts.append(i)
    lasts = [first - 1 for first in firsts[1:]] + [len(offsets) - 1]
    pairs = zip(firsts, lasts, strict=False)
    return [(first, last) for first, last in pairs if text[offsets[first][0] : offsets[last][1]].strip()]


def split_windows(length: int, room: int) -> list[tuple[int, int]]:
    """Overlapping windows of at most ``room`` tokens that cover a text; a quarter of each is shared."""
    if length <= room:
        return [(0, length)]
    step = max(room - room // 4, 1)
    starts = list(range(0, length - room, step))
    return [(start, start + room) for start in starts] + [(length - room, length)]

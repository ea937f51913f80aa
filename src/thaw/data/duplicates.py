"""Texts that occur more than once, verbatim or nearly so.

Near duplicates are found by MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998), vectorised
over the rows: a million rows of a dozen words take a quarter of a minute and 150 MB. Every proposed pair is then
compared word by word, so that there are no false positives.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np

from thaw.data.survey import words_of

SIMILAR = 0.7  # Jaccard similarity of word bigrams from which on two texts are near duplicates
BANDS = 16  # of ROWS hashes each: a pair at SIMILAR is proposed with probability 1 - (1 - 0.7**4)**16 = 0.987
ROWS = 4
CHUNK = 2_000  # texts hashed at once
COMPARED = 200_000  # proposed pairs that are compared, those that share most bands first
END = np.uint64(0x9E3779B97F4A7C15)  # follows the last word, so that a text of one word has a bigram, too
_GENERATOR = np.random.default_rng(1)
FACTORS = _GENERATOR.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64) * 2 + 1
SHIFTS = _GENERATOR.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)
MIX = np.uint64(0xFF51AFD7ED558CCD)  # of MurmurHash3's finaliser


def signatures(texts: Iterable[str | Sequence[str]]) -> Iterator[np.ndarray]:
    """MinHash keys of each text, chunk by chunk: (texts, `BANDS`), uint32. Near duplicates share some of them."""
    texts = iter(texts)
    while chunk := list(islice(texts, CHUNK)):
        words = [_lowered(text) or [""] for text in chunk]
        counts = np.array([len(own) for own in words])
        ends = np.cumsum(counts)
        hashes = (zlib.crc32(word.encode()) for word in chain.from_iterable(words))
        flat = np.fromiter(hashes, np.uint64, int(ends[-1]))
        following = np.append(flat[1:], END)
        following[ends - 1] = END
        pairs = _mixed(flat * MIX + following)
        bands = np.zeros((len(chunk), BANDS), dtype=np.uint64)
        for i, (factor, shift) in enumerate(zip(FACTORS, SHIFTS, strict=True)):
            lowest = np.minimum.reduceat((pairs * factor + shift) >> np.uint64(32), ends - counts)
            bands[:, i // ROWS] = _mixed(bands[:, i // ROWS] + lowest)
        yield (bands >> np.uint64(32)).astype(np.uint32)


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(33))) * MIX
    return values ^ (values >> np.uint64(33))


def _lowered(text: str | Sequence[str]) -> Sequence[str]:
    return words_of(text.lower()) if isinstance(text, str) else [word.lower() for word in text]


def similarity(one: str | Sequence[str], other: str | Sequence[str]) -> float:
    """Jaccard similarity of the lower-cased word bigrams of two texts; 0 if either has no words."""
    first, second = (set(zip(words, [*words[1:], ""], strict=False)) for words in map(_lowered, (one, other)))
    return len(first & second) / len(first | second) if first and second else 0.0


def proposed_pairs(bands: np.ndarray) -> np.ndarray:
    """Pairs of rows that share a band.

    Among rows that share a band, each is paired with the first and with the one before, so that a thousand similar rows
    make two thousand pairs, not half a million.

    Returns:
        (pairs, 2), the smaller row first; pairs that most bands propose first.
    """
    rows, found = len(bands), []
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        same = band[order[1:]] == band[order[:-1]]
        begins = np.concatenate(([True], ~same))
        first = order[begins][np.cumsum(begins) - 1]
        later = np.flatnonzero(~begins)
        keys = np.concatenate([first[later] * rows + order[later], order[later - 1] * rows + order[later]])
        found.append(np.unique(keys))
    keys, often = np.unique(np.concatenate(found), return_counts=True)
    return np.column_stack(np.divmod(keys[np.argsort(-often, kind="stable")], rows))


def near_duplicates(
    bands: np.ndarray, texts_at: Callable[[np.ndarray], Sequence[str | Sequence[str]]]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs of texts that are nearly the same.

    Args:
        bands: the `signatures` of distinct texts.
        texts_at: gives the texts of some rows.

    Returns:
        (pairs, 2) and their similarity, the most similar first; and how many proposed pairs were not compared, beyond
        `COMPARED`.
    """
    proposed = proposed_pairs(bands)
    compared = proposed[:COMPARED]
    alike = np.empty(len(compared))
    for start in range(0, len(compared), CHUNK):
        rows, places = np.unique(compared[start : start + CHUNK], return_inverse=True)
        texts = texts_at(rows)
        alike[start : start + CHUNK] = [similarity(texts[i], texts[j]) for i, j in places.reshape(-1, 2)]
    kept = np.flatnonzero(alike >= SIMILAR)
    kept = kept[np.argsort(-alike[kept], kind="stable")]
    return compared[kept], alike[kept], len(proposed) - len(compared)

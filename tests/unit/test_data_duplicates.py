"""Repeated texts are found exactly; near duplicates with high recall, and none that is not one."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from thaw.data.duplicates import BANDS, SIMILAR, near_duplicates, proposed_pairs, signatures, similarity
from thaw.data.splits import text_keys
from thaw.data.stratified import first_rows

WORDS = [f"word{i}" for i in range(2_000)]


def near(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    bands = np.concatenate(list(signatures(texts)))
    pairs, alike, left = near_duplicates(bands, lambda rows: [texts[i] for i in rows])
    assert left == 0
    return {(int(i), int(j)): float(one) for (i, j), one in zip(pairs, alike, strict=True)}


def test_repeated_texts_point_to_the_first() -> None:
    keys = text_keys(["a", "b", "a", "c", "b", "a"])
    assert first_rows(keys).tolist() == [0, 1, 0, 3, 1, 0]
    assert len(set(text_keys([["a", "b"], ["a b"], ["a", "b"]]))) == 2
    assert len(set(text_keys(["So  good", " so good\n", "SO GOOD"]))) == 1


def test_similarity_is_jaccard_of_neighbouring_words() -> None:
    assert similarity("a b c", "A, b! C?") == 1
    assert similarity("a b c", "a b d") == pytest.approx(1 / 5)  # (a b) of (a b) (b c) (c .) (b d) (d .)
    assert similarity(["a", "b"], ["a", "b"]) == 1
    assert similarity("🎉", "!!!") == 0


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(12, 40))) for _ in range(600)]
    planted = {}
    for i in range(200):
        words = texts[i].split()
        words[draw.randrange(len(words))] = "changed"
        texts.append(" ".join(words).upper() + "!")
        planted[i, 600 + i] = similarity(texts[i], texts[-1])
    found = near(texts)
    wanted = {pair: alike for pair, alike in planted.items() if alike >= SIMILAR}
    assert len(wanted) > 150
    assert set(found) <= set(wanted)
    assert len(found) >= 0.98 * len(wanted)
    assert all(found[pair] == wanted[pair] for pair in found)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_texts_without_words_are_no_duplicates_of_one_another() -> None:
    assert not near(["🎉", "!!!", "...", "🎉🎉"])


def test_many_alike_make_few_pairs() -> None:
    bands = np.zeros((1_000, BANDS), dtype=np.uint32)
    pairs = proposed_pairs(bands)
    assert len(pairs) <= 2_000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert set(pairs.ravel()) == set(range(1_000))


def test_signatures_do_not_depend_on_the_process_or_the_chunk() -> None:
    texts = ["one text", "another text", "🎉"] * 1_500
    whole = np.concatenate(list(signatures(texts)))
    assert whole.shape == (4_500, BANDS)
    assert (whole[:3] == whole[-3:]).all()
    assert int(whole[0].astype(np.int64).sum()) == 37129160572

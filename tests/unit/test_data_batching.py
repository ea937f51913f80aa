"""Every row once, in an order that seed and epoch determine, with little padding."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from thaw.data.batching import (
    Batches,
    EncodedDataset,
    evaluation_batches,
    make_loader,
    sampling_probabilities,
    shuffled_batches,
)
from thaw.data.encoding import Encoded
from thaw.data.ragged import capped, sorted_batches
from thaw.labels import IGNORED

NONE = np.empty(0, dtype=np.int64)


def like_tweets(rows: int) -> np.ndarray:
    """Lengths in tokens: log-normal, median 20, 3 to 90, as those of emotion."""
    return np.clip(np.random.default_rng(0).lognormal(3.0, 0.5, rows), 3, 90).astype(int)


def encoded(lengths: np.ndarray, labels: np.ndarray | None = None) -> Encoded:
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    labels = np.arange(len(lengths)) % 3 if labels is None else labels
    return Encoded(np.arange(1, offsets[-1] + 1), offsets, lengths, labels, NONE, NONE, NONE, NONE)


def flat(batches: Any) -> list[int]:
    return [int(row) for batch in batches for row in batch]


@pytest.mark.parametrize("by_length", [True, False])
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 5_000])
def test_an_epoch_has_every_row_once(rows: int, by_length: bool) -> None:
    batches = Batches(encoded(like_tweets(rows)), 32, seed=1, by_length=by_length)
    drawn = list(batches)
    assert sorted(flat(drawn)) == list(range(rows))
    assert len(drawn) == len(batches) == -(-rows // 32)
    assert max(map(len, drawn)) <= 32


@pytest.mark.parametrize("by_length", [True, False])
def test_seed_and_epoch_determine_the_order(by_length: bool) -> None:
    data = encoded(like_tweets(500))

    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = Batches(data, 16, seed=seed, by_length=by_length)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 0) == order(1, 0)
    assert order(1, 2) == order(1, 2)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert order(1, 1) != order(2, 0)
    # Other rows meet in each epoch, not only other batches.
    assert {frozenset(batch) for batch in order(1, 0)} != {frozenset(batch) for batch in order(1, 1)}


@pytest.mark.parametrize("tokens", [None, 400])
def test_the_first_batch_of_a_run_takes_most_memory(tokens: int | None) -> None:
    data = encoded(like_tweets(300))
    batches = Batches(data, 16, seed=1, tokens=tokens)
    sizes = [len(batch) * data.lengths[batch].max() for batch in batches]
    assert sizes[0] == max(sizes)
    assert sizes != sorted(sizes, reverse=True)
    first = []
    for epoch in range(1, 6):
        batches.set_epoch(epoch)
        own = next(iter(batches))
        first.append(len(own) * data.lengths[own].max())
    assert min(first) < max(sizes), "it has no such place in later epochs"


@pytest.mark.parametrize("balanced", [True, False])
def test_going_on_gives_the_rest_of_the_epoch_and_whole_epochs_after(balanced: bool) -> None:
    data = encoded(like_tweets(300))
    whole = Batches(data, 16, seed=1, balanced=balanced)
    rest = Batches(data, 16, seed=1, balanced=balanced, start=(2, 5))
    for batches in (whole, rest):
        batches.set_epoch(2)
    assert list(rest) == list(whole)[5:]
    for batches in (whole, rest):
        batches.set_epoch(3)
    assert list(rest) == list(whole)


@pytest.mark.parametrize("rows", [7, 64, 97, 301])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_train_equally_often_and_together_on_every_row(world_size: int, rows: int) -> None:
    data = encoded(like_tweets(rows))
    shares = [Batches(data, 8, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    drawn = [list(share) for share in shares]
    assert {len(share) for share in shares} == {len(batches) for batches in drawn} == {-(-rows // (8 * world_size))}
    assert all(batch for batches in drawn for batch in batches)
    assert set(flat(batch for batches in drawn for batch in batches)) == set(range(rows))
    # No row twice, but for the few that let every process have at least one in the last batch.
    assert sum(len(flat(batches)) for batches in drawn) - rows < world_size


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("rows", [1, 33, 5_000])
def test_a_budget_of_tokens_is_kept_and_every_epoch_has_as_many_batches(rows: int, world_size: int) -> None:
    lengths = like_tweets(rows)
    shares = [
        Batches(encoded(lengths), 8, seed=1, tokens=80, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    orders = []
    for epoch in range(3):
        for share in shares:
            share.set_epoch(epoch)
        drawn = [list(share) for share in shares]
        assert {len(share) for share in shares} == {len(batches) for batches in drawn} == {len(list(shares[0]))}
        assert set(flat(batch for batches in drawn for batch in batches)) == set(range(rows))
        for batch in (batch for batches in drawn for batch in batches):
            assert len(batch) * lengths[batch].max() <= 80 or len(batch) == 1
        orders.append(drawn)
    assert len({len(order[0]) for order in orders}) == 1
    if rows > 100:
        assert orders[0] != orders[1]
        padded = sum(len(batch) * lengths[batch].max() for batches in orders[0] for batch in batches)
        assert lengths.sum() / padded > 0.97


@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("rows", [3, 7, 9, 64, 301])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_evaluate_every_row_exactly_once_and_equally_often(
    world_size: int, rows: int, batch_size: int
) -> None:
    data = encoded(like_tweets(rows))
    shares = [
        [batch["rows"].tolist() for batch in evaluation_batches(data, batch_size, 0, rank=rank, world_size=world_size)]
        for rank in range(world_size)
    ]
    assert sorted(flat(batch for share in shares for batch in share)) == list(range(rows))
    assert len({len(share) for share in shares}) == 1
    full = max(batch_size, 2) if rows % world_size else batch_size  # what is over joins the last batch of a row
    assert all(0 < len(batch) <= full for share in shares for batch in share)
    if world_size == 1:
        assert [len(batch) for batch in shares[0][:-1]] == [batch_size] * (len(shares[0]) - 1)


def test_evaluation_goes_from_the_longest_to_the_shortest() -> None:
    lengths = like_tweets(100)
    order = flat(sorted_batches(lengths, 8))
    assert lengths[order].tolist() == sorted(lengths.tolist(), reverse=True)


def test_balanced_draws_every_class_equally_often() -> None:
    labels = np.repeat([0, 1, 2], [4_500, 400, 100])
    assert sampling_probabilities(labels).sum() == pytest.approx(1)
    batches = Batches(encoded(like_tweets(5_000), labels), 32, seed=1, balanced=True)
    drawn = Counter(labels[flat(batches)].tolist())
    assert drawn.total() == 5_000
    assert all(abs(count / 5_000 - 1 / 3) < 0.03 for count in drawn.values())


@pytest.mark.parametrize(("rows", "batch_size"), [(16_000, 32), (16_000, 64), (2_000, 16)])
def test_little_padding(rows: int, batch_size: int) -> None:
    lengths = like_tweets(rows)

    def share_of_tokens(batches: list[np.ndarray]) -> float:
        return float(lengths.sum() / sum(lengths[batch].max() * len(batch) for batch in batches))

    assert share_of_tokens(shuffled_batches(lengths, batch_size, seed=1, epoch=0)) >= 0.95
    assert share_of_tokens(sorted_batches(lengths, batch_size)) >= 0.98
    assert share_of_tokens(shuffled_batches(lengths, batch_size, seed=1, epoch=0, by_length=False)) < 0.6


@pytest.mark.parametrize(("pad_to", "width"), [(None, 4), (9, 9)])
def test_batches_of_texts(pad_to: int | None, width: int) -> None:
    batch = EncodedDataset(encoded(np.array([2, 4, 3]), np.array([7, 8, 9])), pad_id=99, pad_to=pad_to)[[2, 1]]
    ids = [[7, 8, 9, 99], [3, 4, 5, 6]]
    assert batch["input_ids"].tolist() == [row + [99] * (width - 4) for row in ids]
    assert batch["attention_mask"].tolist() == [[1, 1, 1] + [0] * (width - 3), [1] * 4 + [0] * (width - 4)]
    assert batch["labels"].tolist() == [9, 8]
    assert batch["rows"].tolist() == [2, 1]
    assert {value.dtype for value in batch.values() if isinstance(value, torch.Tensor)} == {torch.int64}


@pytest.mark.parametrize("longest", [30, 33])
def test_widths_by_eights_are_few_and_stay_within_the_longest_row_and_the_budget(longest: int) -> None:
    lengths = np.random.default_rng(0).integers(3, longest + 1, 300)
    data = encoded(lengths)
    batches = Batches(data, 8, seed=1, tokens=100, multiple=8)
    shapes = [tuple(batch["input_ids"].shape) for batch in make_loader(data, batches, pad_id=0, multiple=8)]
    assert {width for _, width in shapes} == {8, 16, 24, 32, longest} - ({32} if longest < 32 else set())
    assert len(set(shapes)) <= 10
    assert max(rows * width for rows, width in shapes) <= 100


def test_batches_of_words() -> None:
    data = Encoded(
        ids=np.array([1, 5, 6, 2, 1, 7, 2, 1, 8, 2]),
        offsets=np.array([0, 4, 7, 10]),
        lengths=np.array([4, 4]),
        labels=np.array([IGNORED, 3, 4, IGNORED, IGNORED, 5, IGNORED, IGNORED, 6, IGNORED]),
        words=np.array([-1, 0, 2, -1, -1, 0, -1, -1, 1, -1]),
        tags=np.array([3, 0, 4, 5, 6]),
        tag_offsets=np.array([0, 3, 5]),
        sentences=np.array([0, 1, 1]),
    )
    batch = EncodedDataset(data, pad_id=0, pad_to=5)[[1, 0]]
    assert batch["input_ids"].tolist() == [[1, 7, 2, 0, 0], [1, 5, 6, 2, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 5, *[IGNORED] * 3], [IGNORED, 3, 4, IGNORED, IGNORED]]
    assert batch["words"].tolist() == [[-1, 0, -1, -1, -1], [-1, 0, 2, -1, -1]]
    assert batch["tags"].tolist() == [[5, 6, IGNORED], [3, 0, 4]]
    assert (batch["rows"].tolist(), batch["sentences"].tolist()) == ([1, 0], [1, 0])
    assert EncodedDataset(data, pad_id=0)[[2]]["tags"].tolist() == [[5, 6]]


def test_weights_let_every_token_count_alike_in_whichever_batch_it_is() -> None:
    lengths = like_tweets(300)
    labels = np.where(np.arange(lengths.sum()) % 3, IGNORED, 1)
    losses = np.random.default_rng(1).random(lengths.sum())
    data = encoded(lengths, labels)
    data = replace(data, words=labels, tags=labels, tag_offsets=data.offsets, sentences=np.arange(len(data)))
    batches = list(Batches(data, 16, seed=1))
    dataset = EncodedDataset(data, pad_id=0, usual=(labels != IGNORED).sum() / len(batches))
    weighted = []
    for batch in map(dataset.__getitem__, batches):
        tokens = batch["input_ids"][batch["labels"] != IGNORED].numpy() - 1  # their ids count from 1
        weighted.append(losses[tokens].mean() * batch["weight"].item())
    assert np.mean(weighted) == pytest.approx(losses[labels != IGNORED].mean())


def test_loading_draws_nothing_from_the_random_state() -> None:
    """Otherwise a run that goes on would have other dropout than one that was never stopped."""
    data = encoded(like_tweets(50))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    loaded = list(make_loader(data, Batches(data, 8, seed=1), pad_id=0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    assert sorted(row for batch in loaded for row in batch["rows"].tolist()) == list(range(50))


def test_a_cap_on_tokens_cuts_batches_and_loses_no_row() -> None:
    lengths = np.array([300, 5, 40, 40, 7, 100, 60, 2])
    batches = capped(sorted_batches(lengths, 4), lengths, 100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(8))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 100 for batch in batches)
    assert [batch.tolist() for batch in batches] == [[0], [5], [6], [2], [3, 4], [1, 7]]

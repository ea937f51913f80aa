"""Rows of unequal length: batches with little padding, cut out of flat arrays. Needs only numpy."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def sorted_batches(lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1) -> list[np.ndarray]:
    """Every row once, longest first, so that batches hold little padding and memory peaks at the start.

    Each of several processes (at most as many as rows) gets its own share of the rows. All get the same number of
    batches, since processes that share weights wait for one another; a row left over, which can happen only with
    batches of one row, joins the last batch.
    """
    order = np.argsort(-lengths, kind="stable")
    share = order[rank::world_size]
    count = min(-(-len(order) // (batch_size * world_size)), len(order) // world_size)
    # A batch starts where the previous one is full, or earlier, so that every later batch gets at least one row.
    starts = [min(i * batch_size, len(share) - count + i) for i in range(count)]
    return [share[start:end] for start, end in pairwise([*starts, len(share)])]


def capped(batches: list[np.ndarray], lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Batches cut down to at most so many tokens, padding included, or to a single row; rows keep their order.

    Args:
        batches: row numbers, the longest row of each batch first.
        lengths: tokens of each row.
    """
    result = []
    for batch in batches:
        while len(batch):
            rows = max(1, tokens // max(1, int(lengths[batch[0]])))
            result.append(batch[:rows])
            batch = batch[rows:]
    return result


def pad_rows(
    flat: np.ndarray, offsets: np.ndarray, rows: np.ndarray, padding: int, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows out of a flat array.

    Returns:
        (values, mask): both (rows, longest row or ``width``), int64; the mask is 1 where there is a value.
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    columns = np.arange(int(width or lengths.max()))
    mask = columns[None, :] < lengths[:, None]
    where = np.where(mask, starts[:, None] + columns[None, :], 0)
    values = np.where(mask, flat[where], padding).astype(np.int64) if len(flat) else np.full(mask.shape, padding)
    return values, mask.astype(np.int64)


def flattened(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal length as one flat array, and their offsets."""
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])

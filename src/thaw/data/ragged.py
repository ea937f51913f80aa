"""Rows of unequal length: batches that waste little on padding, cut out of flat arrays. Needs numpy only."""

from itertools import pairwise

import numpy as np


def sorted_batches(lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1) -> list[np.ndarray]:
    """Every row once, longest first, so that batches hold little padding and memory peaks at once.

    Of several processes, no more than rows, each gets its share of the rows, and no row goes to two of them. All get
    the same number of batches, since those that share weights wait for one another; where that leaves a row over, which
    only batches of one row do, the last batch has two.
    """
    order = np.argsort(-lengths, kind="stable")
    own = order[rank::world_size]
    count = min(-(-len(order) // (batch_size * world_size)), len(order) // world_size)
    # A batch begins where the one before is full, or sooner, so that a row is left for each of the rest.
    starts = [min(i * batch_size, len(own) - count + i) for i in range(count)]
    return [own[start:end] for start, end in pairwise([*starts, len(own)])]


def capped(batches: list[np.ndarray], lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Batches of at most so many tokens, padding included, or of a single row; rows keep their order.

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


def gather(
    flat: np.ndarray, offsets: np.ndarray, rows: np.ndarray, padding: int, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows out of a flat array.

    Returns:
        (values, mask): both (rows, longest row or ``width``), int64; the mask is 1 where a value stands.
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    columns = np.arange(int(width or lengths.max()))
    mask = columns[None, :] < lengths[:, None]
    where = np.where(mask, starts[:, None] + columns[None, :], 0)
    values = np.where(mask, flat[where], padding).astype(np.int64) if len(flat) else np.full(mask.shape, padding)
    return values, mask.astype(np.int64)

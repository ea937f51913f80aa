"""Rows of unequal length: batches that waste little on padding, cut out of flat arrays. Needs numpy only."""

import numpy as np


def sorted_batches(lengths: np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1) -> list[np.ndarray]:
    """Every row once, longest first, so that batches hold little padding and memory peaks at once.

    Of several processes each gets its share of the rows, and no row goes to two of them.
    """
    order = np.argsort(-lengths, kind="stable")[rank::world_size]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


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

"""Overlapping windows over texts that are longer than what the encoder reads at once. Needs only numpy."""

from dataclasses import dataclass

import numpy as np

CHUNK = 10_000  # rows that are cut at once


@dataclass(frozen=True)
class Windows:
    """Windows over the rows of a flat array, in the order of the rows.

    Args:
        at: the place of each token of all windows in the flat array, int64.
        own: whether the token belongs to this window, bool. Every token but the special ones belongs to the one window
            that shows most around it.
        offsets: where each window starts, int64, one more than windows.
        rows: the row that each window belongs to, int64.
    """

    at: np.ndarray
    own: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray


def windows_over(offsets: np.ndarray, marks: tuple[int, int], max_length: int) -> Windows:
    """Cut rows of any length into windows, of which neighbours share a quarter.

    Args:
        offsets: where each row starts, and the end of the last one.
        marks: the special tokens before and after each row; every window gets them.
        max_length: tokens of a window at most, special tokens included.
    """
    # A part of the rows at a time, since there are several numbers for each token on the way.
    parts = [
        _windows(offsets[first : first + CHUNK + 1], marks, max_length) for first in range(0, len(offsets) - 1, CHUNK)
    ]
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return Windows(
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.own for part in parts]),
        np.concatenate(([0], np.cumsum(sizes))),
        np.concatenate([part.rows + i * CHUNK for i, part in enumerate(parts)]),
    )


def _windows(offsets: np.ndarray, marks: tuple[int, int], max_length: int) -> Windows:
    before, after = marks
    room = max_length - before - after
    inner = np.diff(offsets) - before - after
    step = room - room // 4
    counts = 1 + np.maximum(-(-(inner - room) // step), 0)
    rows = np.repeat(np.arange(len(inner)), counts)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    # In tokens of the row, without special tokens. The last window ends with the row.
    starts = np.minimum(number * step, np.maximum(inner[rows] - room, 0))
    ends = np.minimum(starts + room, inner[rows])
    # Of what two windows share, each owns a half.
    last = number == counts[rows] - 1
    until = np.where(last, inner[rows], (ends + np.append(starts[1:], 0) + 1) // 2)
    since = np.where(number == 0, 0, np.append(0, until[:-1]))

    sizes = ends - starts + before + after
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    window = np.repeat(np.arange(len(rows)), sizes)
    column = np.arange(bounds[-1]) - bounds[window]
    token = column - before + starts[window]
    inside = (column >= before) & (column < sizes[window] - after)
    skipped = np.where(inside, starts[window], np.where(column < before, 0, (inner[rows] - ends + starts)[window]))
    own = (token >= since[window]) & (token < until[window])
    return Windows(offsets[rows][window] + column + skipped, own, bounds, rows)

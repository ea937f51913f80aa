"""Windows over long sentences."""

from itertools import pairwise

import numpy as np
import pytest

from thaw.data.windows import windows_over


@pytest.mark.parametrize("marks", [(0, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("room", [1, 2, 3, 4, 7, 62])
def test_windows_cover_rows_of_any_length(room: int, marks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.data.windows.CHUNK", 70)  # rows are cut in several parts
    before, after = marks
    lengths = np.concatenate((np.arange(200), [0, 1, room]))  # without special tokens
    offsets = np.concatenate(([0], np.cumsum(lengths + before + after)))
    windows = windows_over(offsets, marks, room + before + after)
    assert (np.diff(windows.offsets) <= room + before + after).all()
    assert np.unique(windows.rows).tolist() == list(range(len(lengths)))
    for row, (start, end) in zip(windows.rows, pairwise(windows.offsets), strict=True):
        at, (first, last) = windows.at[start:end], offsets[row : row + 2]
        assert at[:before].tolist() == list(range(first, first + before))
        assert at[len(at) - after :].tolist() == list(range(last - after, last))
        tokens = at[before : len(at) - after]
        assert (np.diff(tokens) == 1).all()
        assert not len(tokens) or first + before <= tokens[0] <= tokens[-1] < last - after
    of_rows = [np.arange(first + before, last - after) for first, last in pairwise(offsets)]
    assert windows.at[windows.own].tolist() == np.concatenate(of_rows).tolist(), "each token belongs to one window"


@pytest.mark.parametrize(("size", "starts"), [(20, [0, 6, 12]), (19, [0, 6, 11])])
def test_a_token_belongs_to_the_window_that_shows_most_around_it(size: int, starts: list[int]) -> None:
    windows = windows_over(np.array([0, size + 2]), (1, 1), 10)  # with room for 8
    assert [windows.at[start + 1] - 1 for start in windows.offsets[:-1]] == starts
    for token in range(size):
        (place,) = np.flatnonzero(windows.own & (windows.at == token + 1))
        window = np.searchsorted(windows.offsets, place, side="right") - 1
        around = [min(token - start, start + 7 - token) for start in starts]
        assert around[window] == max(around)


def test_rows_that_fit_stay_as_they_are() -> None:
    offsets = np.array([0, 5, 7, 12])
    windows = windows_over(offsets, (1, 1), 5)
    assert windows.at.tolist() == list(range(12))
    assert windows.offsets.tolist() == offsets.tolist()
    assert windows.rows.tolist() == [0, 1, 2]

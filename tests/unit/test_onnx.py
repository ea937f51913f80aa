"""Batches side by side: the same results in the same order, whatever the number of threads."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from thaw.errors import UserError
from thaw.inference.onnx import load_onnx, side_by_side
from thaw.labels import LabelSet


def numbers(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return ((np.array([i]), np.array([1])) for i in range(count))


def squared(threads: int) -> Callable[[Any], np.ndarray]:
    return lambda batch: np.array([batch[0][0] ** 2, threads])


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_results_come_in_order(threads: int) -> None:
    for count in range(20):
        found = [tuple(result.tolist()) for result in side_by_side(squared, threads, numbers(count))]
        # All threads on each of a few batches, one thread on each of many.
        assert found == [(i**2, threads if 2 * count <= threads else 1) for i in range(count)]


def test_batches_are_computed_at_once() -> None:
    both = Barrier(2, timeout=60)
    found = side_by_side(lambda _: lambda _: np.array(both.wait()), 2, numbers(8))
    assert sorted(int(result) for result in found) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_batches_are_taken_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield np.array([taken]), np.array([1])

    found = side_by_side(squared, 2, endless())
    assert [next(found)[0] for _ in range(100)] == [i**2 for i in range(1, 101)]
    assert taken <= 105


def test_an_error_in_a_thread_is_that_of_the_caller() -> None:
    def compute(batch: Any) -> np.ndarray:
        if batch[0][0] == 3:
            raise MemoryError("too large")
        return np.zeros(1)

    with pytest.raises(MemoryError, match="too large"):
        list(side_by_side(lambda _: compute, 2, numbers(8)))


SAVED = {
    **LabelSet("sequence", ("a", "b"), (1, 1)).to_dict(),
    "pad_token_id": 0,
    "max_length": 8,
    "clean_html": False,
    "joined_by": "",
}


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", json.dumps({**SAVED, "names": None})])
def test_damaged_labels_are_told(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    if content is not None:
        (tmp_path / "labels.json").write_text(content)
    with pytest.raises(UserError, match=r"labels\.json: damaged: .* Export the run again\.$"):
        load_onnx(tmp_path)


@pytest.mark.parametrize("key", ["pad_token_id", "max_length", "clean_html", "joined_by"])
def test_labels_that_lack_something_are_told(key: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "labels.json").write_text(json.dumps({name: SAVED[name] for name in SAVED if name != key}))
    with pytest.raises(UserError, match=rf"labels\.json: damaged: it lacks '{key}'\. Export the run again\.$"):
        load_onnx(tmp_path)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_damaged_tokenizer_is_told(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "labels.json").write_text(json.dumps(SAVED))
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json: damaged: .* Export the run again\.$"):
        load_onnx(tmp_path)

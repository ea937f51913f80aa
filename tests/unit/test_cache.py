"""The cache: where it is, what it keeps, and what makes room."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from thaw import cache
from thaw.cache import cache_folder, cached_array, make_room


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"THAW_CACHE": "/disk/thaw", "XDG_CACHE_HOME": "/other"}, "/disk/thaw"),
        ({"THAW_CACHE": "~/thaw"}, "/home/me/thaw"),
        ({"XDG_CACHE_HOME": "/other"}, "/other/thaw"),
        ({}, "/home/me/.cache/thaw"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("THAW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


@pytest.mark.parametrize("array", [np.arange(100), np.empty((0, 3)), np.array(7)], ids=["rows", "no rows", "a number"])
def test_an_array_is_made_once(array: np.ndarray) -> None:
    assert np.array_equal(cached_array("kind", "key", lambda: array), array)
    again = cached_array("kind", "key", lambda: pytest.fail("made anew"))
    assert (again.shape, again.dtype) == (array.shape, array.dtype)
    assert np.array_equal(again, array)


def test_what_was_read_last_stays_longest(tmp_path: Path) -> None:
    for age, key in enumerate(("a", "b", "c")):
        cached_array("kind", key, lambda: np.zeros(100))
        os.utime(tmp_path / "kind" / key, (1e9 + age, 1e9 + age))
    cached_array("kind", "a", lambda: pytest.fail("made anew"))
    size = (tmp_path / "kind/a/array.npy").stat().st_size
    assert make_room("kind", size, limit=2 * size)
    assert sorted(path.name for path in (tmp_path / "kind").iterdir() if path.is_dir()) == ["a"]


@pytest.mark.parametrize(("free", "fits", "left"), [(100, True, {"a", "b"}), (40, True, {"b"}), (0, False, set())])
def test_room_is_made_on_a_full_disk_too(
    free: int, fits: bool, left: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder takes 30 bytes of it; there is no other limit."""
    for age, key in enumerate(("a", "b")):
        folder = tmp_path / "kind" / key
        folder.mkdir(parents=True)
        (folder / "array").write_bytes(bytes(30))
        os.utime(folder, (1e9 + age, 1e9 + age))

    def usage(_: Path) -> SimpleNamespace:
        taken = sum(30 for path in (tmp_path / "kind").iterdir() if path.is_dir())
        return SimpleNamespace(free=free + 60 - taken)

    monkeypatch.setattr(cache.shutil, "disk_usage", usage)
    assert make_room("kind", 70, limit=1000) is fits
    if fits:
        assert {path.name for path in (tmp_path / "kind").iterdir() if path.is_dir()} == left


def test_room_is_made_of_what_a_kill_has_left(tmp_path: Path) -> None:
    """Even under a key that is wanted; what a process is writing stays."""
    for name in (".left.1a", ".held.2b"):
        (tmp_path / "kind" / name).mkdir(parents=True)
    with FileLock(tmp_path / "kind" / "held.lock"):
        assert make_room("kind", 10, limit=100, keep={"left", "held"})
    assert [path.name for path in (tmp_path / "kind").iterdir() if path.is_dir()] == [".held.2b"]

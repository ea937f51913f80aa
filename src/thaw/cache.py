"""Folders of arrays that are computed once, shared by all runs, and may be deleted at any time."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from thaw.errors import UserError

T = TypeVar("T")


def cache_folder() -> Path:
    """``THAW_CACHE``, or else ``thaw`` in the user's cache folder."""
    if "THAW_CACHE" in os.environ:
        return Path(os.environ["THAW_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thaw"


def cached(kind: str, key: str, fill: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Read the folder stored under a key, filling it first if it does not exist yet.

    If several processes want the same key at once, one computes and the others wait. A folder appears under its final
    name only once it is complete.

    Args:
        kind: folder within the cache.
        key: changes with everything that the content depends on.
        fill: called with an empty folder.
        read: called with the complete folder, which no process deletes meanwhile.
    """
    from filelock import FileLock

    folder = cache_folder() / kind / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            try:
                return _read(folder, read)
            except (FileNotFoundError, ValueError, EOFError):  # missing, or damaged, for example by a power failure
                shutil.rmtree(folder, ignore_errors=True)
                _make(folder, fill)
                return _read(folder, read)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: the cache cannot be written: {error.strerror or error}",
            "Set THAW_CACHE to a folder with room.",
        ) from None


def _read(folder: Path, read: Callable[[Path], T]) -> T:
    os.utime(folder)  # when it was last used: see `make_room`
    return read(folder)


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(temporary)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def cached_array(kind: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array stored under a key, memory-mapped; computed and stored first if need be."""
    name = "array.npy"
    return cached(kind, key, lambda folder: np.save(folder / name, make()), lambda folder: open_array(folder / name))


def make_room(kind: str, needed: int, limit: int, keep: Collection[str] = ()) -> bool:
    """Delete the least recently used folders of a kind until more bytes fit.

    Runs that have arrays of a deleted folder open keep them. Folders that a process is filling or opening stay.

    Args:
        keep: keys that stay as well; what is being written under them counts as part of ``needed``.

    Returns:
        Whether ``needed`` bytes fit within ``limit`` bytes of this kind, and on the disk.
    """
    from filelock import FileLock, Timeout

    parent = cache_folder() / kind
    parent.mkdir(parents=True, exist_ok=True)
    if needed > limit:
        return False
    with FileLock(parent.with_suffix(".lock")):
        for path in parent.glob(".*.*"):  # incomplete: what a kill has left, unless a process holds the key
            with suppress(Timeout), FileLock(parent / f"{path.name[1:].partition('.')[0]}.lock", timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        folders = {}  # key and bytes of each; an incomplete folder is named ``.key.something``
        for path in sorted(parent.iterdir(), key=_last_used):
            key = path.name.lstrip(".").partition(".")[0]
            if path.is_dir() and not (path.name.startswith(".") and key in keep):
                folders[path] = key, _bytes(path)
        total = needed + sum(size for _, size in folders.values())
        for path, (key, size) in folders.items():
            if total <= limit and shutil.disk_usage(parent).free >= needed:
                break
            with suppress(Timeout):
                if key not in keep:
                    with FileLock(parent / f"{key}.lock", timeout=0):
                        shutil.rmtree(path, ignore_errors=True)
                    total -= size
    return total <= limit and shutil.disk_usage(parent).free >= needed


def _last_used(path: Path) -> float:
    with suppress(FileNotFoundError):  # another process may rename or delete it meanwhile
        return path.stat().st_mtime
    return 0.0


def _bytes(folder: Path) -> int:
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def open_array(path: Path) -> np.ndarray:
    """A saved array, memory-mapped."""
    return np.load(path, mmap_mode="r")

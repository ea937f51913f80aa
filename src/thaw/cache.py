"""Folders of arrays that are made once, shared by all runs, and may be deleted at any time."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from thaw.errors import UserError


def cache_folder() -> Path:
    """Where they are kept: ``THAW_CACHE``, else ``thaw`` in the user's cache folder."""
    if "THAW_CACHE" in os.environ:
        return Path(os.environ["THAW_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thaw"


def cached(kind: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder under a key: the one that is there, or a new one that ``fill`` writes its files into.

    Of several processes that want the same key at once, one computes and the others wait. A folder appears under its
    final name only once it is complete.

    Args:
        kind: folder within the cache.
        key: changes with everything that the content depends on.
        fill: called with an empty folder.
    """
    from filelock import FileLock

    folder = cache_folder() / kind / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _make(folder, fill)
            os.utime(folder)  # when it was last used: see `make_room`
    except OSError as error:
        raise UserError(
            f"{folder.parent}: the cache cannot be written: {error.strerror or error}",
            "Set THAW_CACHE to a folder with room.",
        ) from None
    return folder


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(temporary)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def cached_array(kind: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """One array under a key, memory-mapped: from the cache, or made and stored."""
    return open_array(cached(kind, key, lambda folder: np.save(folder / "array.npy", make())) / "array.npy")


def make_room(kind: str, needed: int, limit: int) -> bool:
    """Delete the folders of a kind that were unused for longest, until more bytes fit.

    Runs that have a deleted folder's arrays open keep them.

    Returns:
        Whether ``needed`` bytes fit within ``limit`` bytes of this kind, and on the disk.
    """
    parent = cache_folder() / kind
    parent.mkdir(parents=True, exist_ok=True)
    if needed > limit:
        return False
    folders = sorted((path for path in parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in folders]
    while folders and (sum(sizes) + needed > limit or shutil.disk_usage(parent).free < needed):
        shutil.rmtree(folders.pop(0), ignore_errors=True)
        sizes.pop(0)
    return shutil.disk_usage(parent).free >= needed


def open_array(path: Path) -> np.ndarray:
    """A saved array, memory-mapped."""
    # An empty file cannot be mapped.
    array = np.load(path, mmap_mode="r" if path.stat().st_size > 256 else None)
    assert isinstance(array, np.ndarray)
    return array

"""Memory of this process: what the allocator keeps, and what the garbage collector scans."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt, from malloc.h of glibc.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next training step instead of returning it to the system.

    Otherwise glibc maps and unmaps the large tensors of every step one by one, and the kernel zeroes each page again
    on first use. Without glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    mallopt(TOP_PAD, 64 * 2**20)


@contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector out of imports made within this context, which saves a third of their time.

    The imported objects are frozen afterwards, so that later collections skip them and take less time. In a multirun
    this holds for the first run only: later, more than libraries would be frozen.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()

"""How this process asks the system for memory, and how it looks for what it no longer needs."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt, from malloc.h of glibc.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next training step, instead of handing it back to the system.

    Activations and gradients come and go with every step in pieces that glibc maps and unmaps one by one; each page of
    each piece is then zeroed by the kernel when it is first touched. Elsewhere than on glibc this does nothing.
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
    """Import libraries within this, and Python does not search them for garbage: a third of the time that they take.

    What they leave is not searched later either, which makes every collection of a run shorter. In a multirun that goes
    for the first run only, since after it there is more than libraries.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()

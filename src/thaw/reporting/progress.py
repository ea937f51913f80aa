"""Progress bars on standard error, if it is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def training_bar() -> Progress:
    """A bar of optimizer steps that disappears when it stops."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def counting(total: int | None, description: str) -> Iterator[Callable[[int], None]]:
    """Show the progress over some rows; nothing if standard error is not a terminal.

    Args:
        total: the number of rows; None if it is not known.
        description: what is being done.

    Yields:
        A function to call with the number of rows just completed.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda rows: progress.advance(task, rows)

"""The exceptions that end a run on purpose; `UserError` is the one that users read."""

import signal
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

# Schedulers send one of these some time before they end a job; Windows has neither.
REQUEUE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class UserError(Exception):
    """Something the user can fix; shown as one line without a traceback, with exit code 2.

    Args:
        problem: what is wrong, and where (file and line, or config key).
        remedy: the next step to take.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        problem = " ".join(problem.split())
        end = "" if problem.endswith((".", "?", "!")) else "."
        super().__init__(f"{problem}{end} {remedy}".strip())


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def raised(error: BaseException) -> str:
    """Kind, first line and place of an error in code of a user's."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {reason(error)} ({'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno})"


def counted(number: int, noun: str) -> str:
    """``1 column``, ``2 columns``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def missing(wanted: str, package: str, extra: str) -> UserError:
    """The error for a feature whose package is not part of the plain installation.

    Args:
        wanted: the feature, as the user wrote it.
        package: the package that cannot be imported.
        extra: the extra of ``pyproject.toml`` that installs it.
    """
    return UserError(f"{wanted} needs the package {package}", f"From thaw's folder: pip install -e '.[{extra}]'.")


def require(module: str, wanted: str, extra: str, package: str = "") -> Any:
    """A module that is not part of the plain installation; arguments as for `missing`, with ``package`` if it differs.

    Raises:
        UserError: when it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError:
        raise missing(wanted, package or module, extra) from None


class NoGroups(UserError):
    """Rows have no column of groups by that name; they can be read without."""


class Occupied(UserError):
    """Another process is writing to the folder that this one needs."""


class Interrupted(Exception):
    """A signal ended the run after its state was saved; the message says how to resume."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pruned(Exception):
    """A trial of a study ended early because others were better; its run folder says so. Not an error."""

"""The one exception that users are meant to read."""


class UserError(Exception):
    """Something the user can mend; shown as one line, without a traceback, with exit code 2.

    Args:
        problem: what is wrong, and where (file and line, or config key).
        remedy: the next step to take.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        problem = " ".join(problem.split())
        end = "" if problem.endswith((".", "?", "!")) else "."
        super().__init__(f"{problem}{end} {remedy}".strip())


def counted(number: int, noun: str) -> str:
    """``1 column``, ``2 columns``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def missing(wanted: str, package: str, extra: str) -> UserError:
    """The error for what needs a package that is no part of the plain installation.

    Args:
        wanted: what asks for it, as the user wrote it.
        package: that cannot be imported.
        extra: of ``pyproject.toml`` that brings it.
    """
    return UserError(f"{wanted} needs the package {package}", f"From thaw's folder: pip install -e '.[{extra}]'.")


class Occupied(UserError):
    """Another process writes the folder that this one was to write."""


class Interrupted(Exception):
    """A signal ended the run after its state was saved; the message says how to go on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pruned(Exception):
    """A trial of a study ended early because others were better; its run folder says so. Not an error."""

"""The page of a finished run, which needs nothing but its folder; those of a multirun are drawn by a process beside it.

A page takes longer than the training of a linear probe. So folders go to the process line by line while the next run
trains; where they end, also because the multirun was killed, it draws what is left and ends.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from thaw.runs import shell_path

_process: subprocess.Popen[str] | None = None
_sent: list[Path] = []


def draw(run: Path) -> None:
    """Draw the page of a finished run; of a multirun by the time that `wait` returns."""
    if beside():
        _send(run)
    else:
        _draw(run)


def beside() -> bool:
    """Whether runs follow one another in this process, so that a page can be drawn while the next one trains."""
    if not HydraConfig.initialized():
        return False
    config = HydraConfig.get()
    return bool(config.mode == RunMode.MULTIRUN and config.launcher._target_.endswith(".BasicLauncher"))


def wait() -> None:
    """Until all pages stand; those of a process that was killed are drawn here."""
    global _process
    if _process is None:
        return
    _process.communicate()
    left = [run for run in _sent if not (run / "report.html").is_file()] if _process.returncode else []
    _process = None
    _sent.clear()
    for run in left:
        _draw(run)


def _send(run: Path) -> None:
    global _process
    if _process is None:
        command = [sys.executable, "-m", "thaw.reporting.pages"]
        # In a group of its own, since Ctrl-C is not meant for it, but in this session, or else it would not give way.
        _process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, process_group=0)
    assert _process.stdin is not None
    _sent.append(run)
    with suppress(BrokenPipeError):  # somebody killed it
        _process.stdin.write(json.dumps(str(run.absolute())) + "\n")
        _process.stdin.flush()


def _draw(run: Path) -> None:
    """Or say why it cannot be drawn: the run is none the worse for it."""
    from thaw.reporting.run_page import write_own_page

    try:
        write_own_page(run)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"error: no page: {said} Try: python evaluate.py run={shell_path(run)}", file=sys.stderr)


def main() -> None:
    os.nice(19)  # the run that trains comes first
    for line in sys.stdin:
        _draw(Path(json.loads(line)))


if __name__ == "__main__":
    main()

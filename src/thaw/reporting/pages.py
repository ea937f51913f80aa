"""Draws the pages of finished runs from their folders; those of a multirun in a background process.

Drawing a page takes longer than training a linear probe. So the process gets the folders line by line, and draws while
the next run trains. When its input ends, even because the multirun was killed, it finishes the remaining pages.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from thaw.runs import shell_path

_process: subprocess.Popen[str] | None = None
_sent: list[Path] = []


def draw(run: Path) -> None:
    """Draw the page of a finished run; in a multirun it is complete once `wait` returns."""
    if beside():
        _send(run)
    else:
        _draw(run)


def beside() -> bool:
    """Whether runs follow one another in this process, so that pages can be drawn while the next run trains."""
    if not HydraConfig.initialized():
        return False
    config = HydraConfig.get()
    return bool(config.mode == RunMode.MULTIRUN and config.launcher._target_.endswith(".BasicLauncher"))


def wait() -> None:
    """Wait until all pages are drawn; if the process was killed, draw the missing ones here."""
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
        # In its own process group, which Ctrl-C does not reach, but in this session, or `nice` would have no effect.
        apart: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        _process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, **apart)
    _sent.append(run)
    with suppress(BrokenPipeError):  # it was killed
        print(json.dumps(str(run.absolute())), file=_process.stdin, flush=True)


def _draw(run: Path) -> None:
    """Draw a page, or print why that failed; the run itself is not affected."""
    from thaw.reporting.run_page import write_own_page

    try:
        write_own_page(run)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"error: no page: {reason}; try: python evaluate.py run={shell_path(run)}", file=sys.stderr)


def main() -> None:
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)  # the run that trains comes first
    for line in sys.stdin:
        _draw(Path(json.loads(line)))


if __name__ == "__main__":
    main()

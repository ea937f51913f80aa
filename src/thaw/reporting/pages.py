"""The pages of a multirun's runs, drawn by a process beside it while the next run trains.

A page takes longer than the training of a linear probe, and needs nothing but the run folder. Folders go to the process
line by line; where they end, also because the multirun was killed, it draws what is left and ends.
"""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

_process: subprocess.Popen[str] | None = None


def beside() -> bool:
    """Whether runs follow one another in this process."""
    if not HydraConfig.initialized():
        return False
    config = HydraConfig.get()
    return bool(config.mode == RunMode.MULTIRUN and config.launcher._target_.endswith(".BasicLauncher"))


def draw_later(run: Path) -> None:
    """Let the page of a finished run be drawn; see `wait`."""
    global _process
    if _process is None:
        command = [sys.executable, "-m", "thaw.reporting.pages"]
        # In a group of its own, since Ctrl-C is not meant for it, but in this session, or else it would not give way.
        _process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, process_group=0)
    assert _process.stdin is not None
    try:
        _process.stdin.write(json.dumps(str(run.resolve())) + "\n")
        _process.stdin.flush()
    except BrokenPipeError:  # somebody killed it
        draw(run)


def wait() -> None:
    """Until all pages stand."""
    global _process
    if _process is not None:
        _process.communicate()
        _process = None


def draw(run: Path) -> None:
    from thaw.reporting.run_page import write_own_page

    write_own_page(run)


def main() -> None:
    os.nice(19)  # the run that trains comes first
    for line in sys.stdin:
        run = Path(json.loads(line))
        try:
            draw(run)
        except Exception:
            traceback.print_exc()
            print(f"error: {run}: its page cannot be drawn. Try: python evaluate.py run={run}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""A process that has imported the libraries, and runs root scripts in forks of itself: each starts seconds sooner.

It reads a call from each line of its standard input, as JSON, and answers with the exit code. What a script imports,
and when, cannot be seen here: tests of that start processes of their own.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT = 300  # seconds, after which SIGALRM ends a script
# What is read at each call, or set by libraries in the process of the tests; all else is read when they are imported.
AT_EACH_CALL = ("THAW_CACHE", "PYTEST_", "PL_", "HYDRA_", "KMP_", "ONEDNN_", "CUBLAS_", "TORCHINDUCTOR_", "PYTORCH_")
OFFLINE = {"HF_HUB_OFFLINE": "1"}  # as in almost all tests


class Warm:
    """The process, which starts at the first call.

    Args:
        folder: for the standard streams of scripts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment = folder, {**os.environ, **OFFLINE}
        self.process: subprocess.Popen[str] | None = None

    def fits(self, environment: dict[str, str]) -> bool:
        """Whether a script with this environment can run here."""
        own, wanted = (
            {key: value for key, value in one.items() if not key.startswith(AT_EACH_CALL)}
            for one in (self.environment, environment)
        )
        return own == wanted

    def run(
        self, command: list[str], cwd: Path, environment: dict[str, str], stdin: str
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` would give for a script and its arguments."""
        if self.process is None:
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen([sys.executable, __file__], env=self.environment, text=True, **pipes)
        streams = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin, encoding="utf-8")
        call = [command, str(cwd), environment, *map(str, streams)]
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(call), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        said = [stream.read_text(encoding="utf-8") for stream in streams[1:]]
        return subprocess.CompletedProcess(command, code, *said)

    def end(self) -> None:
        if self.process:
            self.process.communicate()


def serve() -> None:
    """Answer calls until there are no more; in the fork of each, run the script."""
    while line := sys.stdin.readline():
        if not (child := os.fork()):
            break
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    else:
        return
    command, folder, environment, *streams = json.loads(line)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in enumerate(streams):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY
        os.dup2(os.open(name, flags), descriptor)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - the one before may have read ahead
    os.chdir(folder)
    sys.argv, sys.path[0] = command, os.path.dirname(command[0])
    signal.alarm(TIMEOUT)
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    from thaw.memory import importing

    with importing():
        import thaw.evaluation
        import thaw.exploration.measuring
        import thaw.inference.labelling
        import thaw.reporting.comparison
        import thaw.training.fit  # noqa: F401 - for the forks
    serve()

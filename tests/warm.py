"""Processes that have imported the libraries, and run root scripts in forks of themselves: each starts seconds sooner.

It reads a call from each line of its standard input, as JSON, and answers with the exit code. What a script imports,
and when, cannot be seen here: tests of that start processes of their own.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

TIMEOUT = 300  # seconds, after which SIGALRM ends a script
# What is read at each call, or set by libraries in the process of the tests; all else is read when they are imported.
AT_EACH_CALL = ("THAW_CACHE", "PYTEST_", "PL_", "HYDRA_", "KMP_", "ONEDNN_", "CUBLAS_", "TORCHINDUCTOR_", "PYTORCH_")
IMPORTED = (
    "datasets", "sklearn.linear_model", "transformers.models.bert.modeling_bert", "transformers.optimization",
    "transformers.models.distilbert.modeling_distilbert", "thaw.evaluation", "thaw.exploration.measuring",
    "thaw.inference.labelling", "thaw.reporting.comparison", "thaw.reporting.run_page", "thaw.training.fit",
)  # fmt: skip
OFFLINE = {"HF_HUB_OFFLINE": "1"}  # as in almost all tests


class Warm:
    """A process for each environment of more than one call; that of most tests is sure to have some.

    Args:
        folder: for the standard streams of scripts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = {_read_early({**os.environ, **OFFLINE})}
        self.processes: dict[frozenset[tuple[str, str]], subprocess.Popen[str]] = {}

    def run(
        self, command: list[str], cwd: Path, environment: dict[str, str], stdin: str
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives for a script and its arguments."""
        early = _read_early(environment)
        if early not in self.seen:
            self.seen.add(early)
            options: Any = {"input": stdin, "capture_output": True, "text": True, "timeout": TIMEOUT}
            return subprocess.run([sys.executable, *command], cwd=cwd, env=environment, **options)
        if early not in self.processes:
            options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.processes[early] = subprocess.Popen([sys.executable, __file__], env=environment, **options)
        process = self.processes[early]
        streams = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin, encoding="utf-8")
        call = [command, str(cwd), environment, *map(str, streams)]
        assert process.stdin
        assert process.stdout
        print(json.dumps(call), file=process.stdin, flush=True)
        code = int(process.stdout.readline())
        said = [stream.read_text(encoding="utf-8") for stream in streams[1:]]
        return subprocess.CompletedProcess(command, code, *said)

    def end(self) -> None:
        for process in self.processes.values():
            process.communicate()


def _read_early(environment: dict[str, str]) -> frozenset[tuple[str, str]]:
    """The variables that libraries read when they are imported."""
    return frozenset((key, value) for key, value in environment.items() if not key.startswith(AT_EACH_CALL))


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
        for module in IMPORTED:
            import_module(module)
    serve()

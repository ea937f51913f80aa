"""Sweeps over frozen layers, which are computed once: 12 linear probes, and 6 seeds and rates of the last layer.

    python -m benchmarks.sweep data.path=~/emotion [runs=2] [cases=head] [any override of train.py]

thaw runs the whole ``train.py -m`` from an empty cache. Of the Trainer's runs, which have nothing to share, the first
few are timed in fresh processes, and their mean counts for each of the sweep; figures are compared over those few.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.pairs import Row, environment, report, run
from benchmarks.settings import ROOT, checked, own_settings, script
from thaw.errors import UserError

CASES = {
    "head": (["freeze=head", "trainer.max_epochs=5"], "3e-4,1e-3,3e-3,1e-2"),
    "last_layer": (["freeze=all_but_last_n", "freeze.n=1", "trainer.max_epochs=3"], "2e-5,1e-4"),
}
SEEDS = ("1", "2", "3")


def sweep(settings: list[str], rates: str, folder: str, chosen: list[tuple[str, str]]) -> Row:
    """One multirun of thaw: seconds from start to end, and the mean of the test figures of some (rate, seed)."""
    swept = [f"optimizer.lr={rates}", f"seed={','.join(SEEDS)}", f"hydra.sweep.dir={folder}/runs"]
    seconds, peak = timed(["train.py", "-m", *settings, *swept], folder)
    figures = {}
    for path in Path(folder).glob("runs/*/metrics.json"):
        config: Any = OmegaConf.load(path.with_name("config.yaml"))
        figures[config.optimizer.lr, config.seed] = json.loads(path.read_text())
    compared = [figures[float(rate), int(seed)] for rate, seed in chosen]
    mean = {name: statistics.mean(row[name] for row in compared) for name in ("test/accuracy", "test/f1_weighted")}
    return {**mean, "seconds": seconds, "runs": len(figures), "peak_mb": peak}


def timed(command: list[str], cache: str) -> tuple[float, float]:
    """Seconds of a command of Python from start to end, and its peak memory in MB."""
    clock = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment(cache)) as process:
        # Not RUSAGE_CHILDREN, which has the peak of all children that ended before as well.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{command[0]}: ended with exit code {process.returncode}", "What it said stands above.")
    return time.perf_counter() - clock, usage.ru_maxrss / 1024


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"runs": "2", "cases": ",".join(CASES)})
    names = own["cases"].split(",")
    if unknown := set(names) - CASES.keys():
        raise UserError(f"cases={','.join(unknown)} is not known", f"There are: {', '.join(CASES)}.")
    cases = [(["data=emotion", "data.batch_size=64", *CASES[name][0], *arguments], CASES[name][1]) for name in names]
    for settings, _ in cases:
        checked(["thaw", "trainer_grouped"], settings)
    for settings, rates in cases:
        every = [(rate, seed) for rate in rates.split(",") for seed in SEEDS]
        chosen = every[:: max(len(every) // int(own["runs"]), 1)][: int(own["runs"])]
        with tempfile.TemporaryDirectory() as folder:
            thaw = sweep(settings, rates, folder, chosen)
        if len(every) != thaw["runs"]:
            raise UserError(f"{thaw['runs']} of {len(every)} runs ended well", "What they said stands above.")
        rows = [
            run(["benchmarks.side", "trainer_grouped", *settings, f"optimizer.lr={rate}", f"seed={seed}"])
            for rate, seed in chosen
        ]
        trainer = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
        trainer |= {"seconds": trainer["wall"] * len(every), "runs": len(rows)}
        report("sweep", [*settings, f"optimizer.lr={rates}"], {"thaw": [thaw], "trainer_grouped": [trainer]})


if __name__ == "__main__":
    script(main)

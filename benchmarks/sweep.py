"""Sweeps over frozen layers, which are computed once: 12 linear probes, and 6 seeds and rates of the last layer.

    python -m benchmarks.sweep data.path=~/emotion [runs=2] [cases=head] [any override of train.py]

thaw runs the whole ``train.py -m`` from an empty cache. Of the Trainer's runs, which have nothing to share, the first
few are timed in fresh processes, and their mean counts for each of the sweep; figures are compared over those few.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.pairs import ROOT, Row, environment, own_settings, report, run

CASES = {
    "head": (["freeze=head", "trainer.max_epochs=5"], "3e-4,1e-3,3e-3,1e-2"),
    "last_layer": (["freeze=all_but_last_n", "freeze.n=1", "trainer.max_epochs=3"], "2e-5,1e-4"),
}
SEEDS = ("1", "2", "3")


def sweep(settings: list[str], rates: str, folder: str, chosen: list[tuple[str, str]]) -> Row:
    """One multirun of thaw: seconds from start to end, and the mean of the test figures of some (rate, seed)."""
    swept = [f"optimizer.lr={rates}", f"seed={','.join(SEEDS)}", f"hydra.sweep.dir={folder}/runs"]
    clock = time.perf_counter()
    subprocess.run([sys.executable, "train.py", "-m", *settings, *swept], cwd=ROOT, env=environment(folder), check=True)
    seconds = time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    figures = {}
    for path in Path(folder).glob("runs/*/metrics.json"):
        config: Any = OmegaConf.load(path.with_name("config.yaml"))
        figures[config.optimizer.lr, config.seed] = json.loads(path.read_text())
    compared = [figures[float(rate), int(seed)] for rate, seed in chosen]
    mean = {name: statistics.mean(row[name] for row in compared) for name in ("test/accuracy", "test/f1_weighted")}
    return {**mean, "seconds": seconds, "runs": len(figures), "peak_mb": peak}


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"runs": "2", "cases": ",".join(CASES)})
    names = own["cases"].split(",")
    if unknown := set(names) - CASES.keys():
        sys.exit(f"error: cases={','.join(unknown)}: there are {', '.join(CASES)}")
    for case, rates in (CASES[name] for name in names):
        settings = ["data=emotion", "data.batch_size=64", *case, *arguments]
        every = [(rate, seed) for rate in rates.split(",") for seed in SEEDS]
        chosen = every[:: max(len(every) // int(own["runs"]), 1)][: int(own["runs"])]
        with tempfile.TemporaryDirectory() as folder:
            thaw = sweep(settings, rates, folder, chosen)
        if len(every) != thaw["runs"]:
            sys.exit(f"error: {thaw['runs']} of {len(every)} runs ended well")
        rows = [
            run(["benchmarks.side", "trainer_grouped", *settings, f"optimizer.lr={rate}", f"seed={seed}"])
            for rate, seed in chosen
        ]
        trainer = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
        trainer |= {"seconds": trainer["wall"] * len(every), "runs": len(rows)}
        report("sweep", [*settings, f"optimizer.lr={rates}"], {"thaw": [thaw], "trainer_grouped": [trainer]})


if __name__ == "__main__":
    main(sys.argv[1:])

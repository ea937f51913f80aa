"""What the benchmarks share: systems run alternately, each time in a fresh process, and the ratios between them."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.settings import ROOT
from thaw.errors import UserError

RESULTS = ROOT / "outputs" / "benchmarks"
Row = dict[str, Any]


def alternate(commands: dict[str, list[str]], pairs: int, cold: bool = False) -> dict[str, list[Row]]:
    """Run each command in turn, several times over, so that disturbances of the machine affect all of them.

    Args:
        commands: system -> arguments of ``python -m``; the last line of its output is JSON.
        pairs: how often each runs.
        cold: with an empty cache each time.
    """
    results: dict[str, list[Row]] = {system: [] for system in commands}
    for _ in range(pairs):
        for system, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                results[system].append(run(command, cache=folder if cold else "warm"))
            print(f"{system:18} {json.dumps(results[system][-1])}", flush=True)
    return results


def run(command: list[str], cache: str = "warm") -> Row:
    """Run a command in a fresh process; returns the JSON that it prints last, and ``wall``, its seconds."""
    clock = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment(cache), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        raise UserError(f"{' '.join(command)}: ended with exit code {done.returncode}", "What it said stands above.")
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return {**row, "wall": time.perf_counter() - clock}


def environment(cache: str) -> dict[str, str]:
    """The environment of a child process, with a cache of its own under this name."""
    return {**os.environ, "THAW_CACHE": str(RESULTS / "cache" / cache), "TOKENIZERS_PARALLELISM": "false"}


def ratios(results: dict[str, list[Row]], figure: str = "seconds") -> dict[str, Row]:
    """The time of each system relative to the first, pair by pair: median, minimum and maximum."""
    own = [row[figure] for row in next(iter(results.values()))]
    table = {}
    for system, rows in results.items():
        values = [row[figure] / mine for row, mine in zip(rows, own, strict=True)]
        table[system] = {"ratio": statistics.median(values), "least": min(values), "most": max(values)}
    return table


def record(name: str, row: Row) -> None:
    """Append a line to ``outputs/benchmarks/<name>.jsonl``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def report(name: str, settings: Sequence[str], results: dict[str, list[Row]], figure: str = "seconds") -> None:
    """Append the comparison to ``outputs/benchmarks/<name>.jsonl`` and print it."""
    table = ratios(results, figure)
    record(name, {"settings": list(settings), "figure": figure, "ratios": table, "runs": results})
    print(f"\n{name}: {' '.join(settings)}")
    print(f"{'system':18} {figure:>9} {'ratio':>7} {'spread':>13} {'peak MB':>8}  quality")
    for system, rows in results.items():
        own, middle = table[system], {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        quality = "  ".join(f"{key} {value:.4f}" for key, value in middle.items() if "/" in key or key == "mfu")
        spread = f"{own['least']:.2f} – {own['most']:.2f}"
        print(f"{system:18} {middle[figure]:9.2f} {own['ratio']:7.2f} {spread:>13} {middle['peak_mb']:8.0f}  {quality}")

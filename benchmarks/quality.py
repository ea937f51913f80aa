"""Does thaw reach what the Hugging Face Trainer reaches? The same rows, encoder and settings, several seeds each.

    python -m benchmarks.quality data=emotion data.path=~/emotion freeze=none [seeds=1,2,3] [systems=thaw]

Takes the settings of ``train.py``. Prints each run, then the mean and standard deviation of the test figures over the
seeds, and appends them to ``outputs/benchmarks/quality.jsonl``.
"""

import json
import statistics
import sys

from benchmarks.pairs import RESULTS, Row, own_settings, run


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"seeds": "1,2,3", "systems": "thaw,trainer_grouped"})
    results: dict[str, list[Row]] = {system: [] for system in own["systems"].split(",")}
    for seed in own["seeds"].split(","):
        for system, rows in results.items():
            rows.append(run(["benchmarks.side", system, *arguments, f"seed={seed}"]))
            write({"system": system, "settings": [*arguments, f"seed={seed}"], **rows[-1]})
    for system, rows in results.items():
        figures: Row = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            figures[name] = f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"
        write({"system": system, "settings": arguments, "runs": len(rows), **figures})


def write(row: Row) -> None:
    print(json.dumps(row, ensure_ascii=False), flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "quality.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

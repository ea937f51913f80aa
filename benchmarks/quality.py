"""Does thaw reach what the Hugging Face Trainer reaches? The same rows, encoder and settings, several seeds each.

    python -m benchmarks.quality data=emotion data.path=~/emotion freeze=none [seeds=1,2,3] [systems=thaw]
    python -m benchmarks.quality experiment=conll_bert_1k model=minilm data.path=~/ner systems=thaw,trainer_tutorial

Takes the settings of ``train.py``. Prints each run, then the mean and standard deviation of the figures over the seeds,
and by how much the two systems differ, with the standard error of that (Welch); ``best`` is the monitored score on
validation. All goes to ``outputs/benchmarks/quality.jsonl`` as well.
"""

import json
import math
import statistics

from benchmarks.pairs import Row, record, run
from benchmarks.settings import own_settings, script, sides


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"seeds": "1,2,3", "systems": "thaw,trainer_grouped"})
    commands = sides(own["systems"], arguments)
    results: dict[str, list[Row]] = {system: [] for system in commands}
    for seed in own["seeds"].split(","):
        for system, rows in results.items():
            rows.append(run([*commands[system], f"seed={seed}"]))
            write({"system": system, "settings": [*arguments, f"seed={seed}"], **rows[-1]})
    for system, rows in results.items():
        figures: Row = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            figures[name] = f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"
        write({"system": system, "settings": arguments, "runs": len(rows), **figures})
    if len(results) == 2 and len(own["seeds"].split(",")) > 1:
        first, second = results.values()
        write(
            {
                "difference": list(results),
                **{name: difference(first, second, name) for name in first[0] if name in second[0]},
            }
        )


def difference(first: list[Row], second: list[Row], name: str) -> str:
    """The difference of two means, first minus second, and its standard error."""
    sides = [[row[name] for row in rows] for rows in (first, second)]
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in sides))
    return f"{statistics.mean(sides[0]) - statistics.mean(sides[1]):+.4f} ± {error:.4f}"


def write(row: Row) -> None:
    print(json.dumps(row, ensure_ascii=False), flush=True)
    record("quality", row)


if __name__ == "__main__":
    script(main)

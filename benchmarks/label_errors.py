"""Does cross-validation find wrong labels? Some labels are changed at random; how many of them does it list first?

    python -m benchmarks.label_errors data=emotion data.path=~/emotion [rows=4000] [changed=200] [overrides of train.py]

Compares ``label_errors.csv`` of ``sweep=folds`` with the suspicious labels of ``explore.py``, which come from a bag of
words. Prints how many rows each lists, how many of the changed labels are among these, and among as many of the first
as were changed; the same goes to ``outputs/benchmarks/label_errors.jsonl``.
"""

import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.pairs import environment, record
from benchmarks.settings import ROOT, checked, own_settings, script
from thaw.errors import UserError


def main(arguments: list[str]) -> None:
    own = own_settings(arguments, {"rows": "4000", "changed": "200"})
    config = checked(["thaw"], ["data=emotion", *arguments])
    texts, gold, names = rows_of(OmegaConf.to_container(config.data, resolve=True), int(own["rows"]))
    generator = random.Random(0)
    changed = generator.sample(range(len(gold)), int(own["changed"]))
    for i in changed:
        gold[i] = (gold[i] + generator.randrange(1, len(names))) % len(names)
    settings = [argument for argument in arguments if not argument.startswith(("data=", "data.path="))]
    found = {
        "sweep=folds": by_folds(texts, [names[i] for i in gold], settings),
        "explore.py": by_words(texts, gold, names),
    }
    for system, listed in found.items():
        first = len({*listed[: len(changed)]}.intersection(changed))
        figures = {"system": system, "rows": len(gold), "changed": len(changed), "listed": len(listed),
               "found": len({*listed}.intersection(changed)), "found_first": first}  # fmt: skip
        print(json.dumps(figures))
        record("label_errors", {"settings": arguments, **figures})


def rows_of(data: Any, count: int) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The first training rows: texts, label ids, and the names of these."""
    from thaw.data.module import TextDataModule

    module = TextDataModule(data, lambda _: None, max_length=0, seed=0)
    module.read()
    if module.labels.task != "sequence":
        raise UserError(f"the rows are of a {module.labels.task} task", "Give data with one label for each text.")
    rows = module.rows["train"][:count]
    return list(rows["text"]), list(rows["label"]), module.labels.names


def by_folds(texts: list[str], labels: list[str], settings: list[str]) -> list[int]:
    """The rows of ``label_errors.csv``, in its order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        lines = (json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True))
        path.write_text("\n".join(lines), encoding="utf-8")
        sweep = ["sweep=folds", "data=jsonl", f"data.path={path}", *settings, f"hydra.sweep.dir={folder}/runs"]
        subprocess.run([sys.executable, "train.py", *sweep], cwd=ROOT, env=environment("warm"), check=True)
        with (Path(folder) / "runs/label_errors.csv").open(encoding="utf-8-sig", newline="") as file:
            return [int(row["place"].rpartition(":")[2]) - 1 for row in csv.DictReader(file)]


def by_words(texts: list[str], gold: list[int], names: tuple[str, ...]) -> list[int]:
    """The suspicious labels of ``explore.py``, the most suspicious first."""
    from thaw.labels import LabelSet
    from thaw.metrics.label_noise import suspicious_labels

    labels = LabelSet("sequence", names, (1,) * len(names))
    return [one["row"] for one in suspicious_labels(texts, gold, labels)]


if __name__ == "__main__":
    script(main)

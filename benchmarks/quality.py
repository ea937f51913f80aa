"""Does thaw reach what the Hugging Face Trainer reaches? The same rows, encoder and settings, several seeds each.

    python -m benchmarks.quality data=emotion data.path=~/emotion freeze=none seeds=[1,2,3]

Takes the settings of ``train.py``, and: ``seeds``; ``systems=[thaw]`` or ``systems=[trainer]`` to run one
alone. Prints the mean and standard
deviation of the test figures over the seeds, and appends them to ``outputs/benchmarks/quality.jsonl``.
"""

import contextlib
import io
import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from thaw.cli import quoted, stem

ROOT = Path(__file__).resolve().parents[1]


def configured(overrides: list[str]) -> Any:
    """The config of ``train.py`` with overrides, outside Hydra's command line."""
    OmegaConf.register_new_resolver("stem", stem, replace=True)
    OmegaConf.register_new_resolver("sample", lambda data: str(ROOT / "samples" / data), replace=True)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=[quoted(override) for override in overrides])


def main(arguments: list[str]) -> None:
    own = {"seeds": "[1,2,3]", "systems": "[thaw,trainer]"}
    for argument in list(arguments):
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
            arguments.remove(argument)
    seeds, systems = json.loads(own["seeds"]), own["systems"].strip("[]").split(",")

    from benchmarks.peer import train_with_trainer
    from thaw.data.module import TextDataModule
    from thaw.hub import locate_encoder
    from thaw.models.encoder import length_limit, load_tokenizer, resolve_length
    from thaw.training.fit import fit

    results: dict[str, list[dict[str, float]]] = {"thaw": [], "trainer": []}
    for seed in seeds:
        config = configured([*arguments, f"seed={seed}", "trainer.progress_bar=false"])
        cfg: Any = OmegaConf.to_container(config, resolve=True)
        if "thaw" in systems:
            with tempfile.TemporaryDirectory() as folder:
                with contextlib.redirect_stdout(io.StringIO()):
                    fit(config, Path(folder))
                metrics = json.loads((Path(folder) / "metrics.json").read_text())
            results["thaw"].append({**metrics, "seconds": metrics["seconds"]["train"]})
            report(arguments, "thaw", results["thaw"][-1:])
        if "trainer" in systems:
            encoder = locate_encoder(cfg["model"])
            length = resolve_length(cfg["data"]["max_length"], length_limit(encoder))
            data = TextDataModule(cfg["data"], partial(load_tokenizer, encoder), length, seed)
            data.prepare()
            with tempfile.TemporaryDirectory() as folder:
                results["trainer"].append(train_with_trainer(encoder, data, cfg, Path(folder), seed))
            report(arguments, "trainer", results["trainer"][-1:])
    for system, runs in results.items():
        if runs:
            report(arguments, system, runs)


def report(arguments: list[str], system: str, runs: list[dict[str, float]]) -> None:
    """Print one line, and append it to the file of results."""
    shown = [name for name in ("test/accuracy", "test/f1", "test/f1_weighted") if name in runs[0]]
    row: dict[str, Any] = {"settings": " ".join(arguments), "system": system, "runs": len(runs)}
    for name in [*shown, "seconds"]:
        values = [run[name] for run in runs]
        row[name] = round(statistics.mean(values), 4)
        if len(values) > 1:
            row[f"{name} sd"] = round(statistics.stdev(values), 4)
    print(json.dumps(row), flush=True)
    path = ROOT / "outputs" / "benchmarks" / "quality.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

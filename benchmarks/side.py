"""One run of one system in a process of its own, for the benchmarks: prints its figures as a line of JSON.

    python -m benchmarks.side thaw data=emotion data.path=~/emotion
    python -m benchmarks.side trainer_grouped data=emotion data.path=~/emotion

Systems: ``thaw``; and the Hugging Face Trainer as tutorials write it (``trainer_padded``: every row padded to the
length limit of the tutorials, 128 or ``data.max_length``), with dynamic padding (``trainer_dynamic``), with batches
grouped by length and its best settings (``trainer_grouped``), and padded as the protocol of an experiment says
(``trainer_tutorial``), also with the dropout of frozen layers off (``trainer_resting``). Padding and order of the
Trainer's batches are those of its form; any other setting that it cannot follow is an error.
"""

import json
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import checked, script
from thaw.hub import locate_encoder
from thaw.settings import plain

SHOWN = ("best", "test/accuracy", "test/f1", "test/f1_weighted", "test/loss")


def run_thaw(config: Any, folder: Path) -> dict[str, float]:
    """Train and evaluate with thaw: the test figures, and the seconds of training with its validations."""
    from thaw.memory import keep_freed_memory
    from thaw.training.fit import fit

    keep_freed_memory()  # as every script of thaw begins
    fit(config, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    return {**metrics, "best": metrics["best"]["score"], "seconds": metrics["seconds"]["train"]}


def run_trainer(config: Any, folder: Path, form: str) -> dict[str, float]:
    """The same with the Trainer, on the rows, labels and token ids that thaw reads."""
    from benchmarks.peer import train_with_trainer

    cfg = plain(config)
    return train_with_trainer(locate_encoder(cfg["model"]), prepared_data(cfg), cfg, folder, cfg["seed"], form)


def prepared_data(cfg: dict[str, Any]) -> Any:
    """The data module of a config, with its splits encoded."""
    from thaw.data.module import TextDataModule
    from thaw.models.encoder import length_limit, load_tokenizer, resolve_length

    encoder = locate_encoder(cfg["model"])
    length = resolve_length(cfg["data"]["max_length"], length_limit(encoder))
    data = TextDataModule(cfg["data"], partial(load_tokenizer, encoder), length, cfg["seed"])
    data.prepare()
    return data


def measured(config: Any, seconds: float) -> dict[str, float]:
    """Peak memory, that of the GPU where there is one, and for full fine-tuning the model FLOPs utilisation."""
    from benchmarks.utilisation import utilisation
    from thaw.models.encoder import load_encoder

    cfg = plain(config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    row = {"peak_mb": peak}
    if cfg["freeze"]["name"] == "none" and not (
        cfg["callbacks"] or cfg["trainer"]["eval_every"] or cfg["trainer"]["max_steps"]
    ):
        data = prepared_data(cfg)
        network = load_encoder(locate_encoder(cfg["model"]), data.labels, cfg["model"])
        train, validation = data.encoded["train"].kept, data.encoded["validation"].kept
        row["mfu"] = utilisation(network, train, validation, cfg["trainer"]["max_epochs"], seconds)
    return row


def main(arguments: list[str]) -> None:
    system, *overrides = arguments
    config = checked([system], overrides)
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")  # what the driver needs to begin is not training, of neither side
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if system == "thaw":
            figures = run_thaw(config, Path(folder))
        else:
            figures = run_trainer(config, Path(folder), system.removeprefix("trainer_"))
    row = {name: figures[name] for name in SHOWN if name in figures}
    seconds, wall = figures["seconds"], time.perf_counter() - clock
    print(json.dumps({**row, "seconds": seconds, "all": wall, **measured(config, seconds)}))


if __name__ == "__main__":
    script(main)

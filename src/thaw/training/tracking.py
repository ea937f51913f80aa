"""Loggers beside the history: W&B, TensorBoard. What one run sends is ended with the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.errors import missing
from thaw.instantiate import build
from thaw.labels import LabelSet
from thaw.runs import read_jsonl

ERRORS_SHOWN = 100  # rows in the table of errors


@dataclass
class Tracker:
    """A Lightning logger and its kind (``wandb``, ``tensorboard``)."""

    kind: str
    logger: Any

    def finish(self) -> None:
        if self.kind == "wandb":
            import wandb

            # Otherwise the next run of a multirun would go on writing into this one.
            wandb.finish()


def make_loggers(cfg: dict[str, Any], folder: Path, multirun: bool = False) -> list[Tracker]:
    """The loggers of the ``logger`` group; W&B shows the runs of a multirun as one group."""
    trackers = []
    for kind, settings in cfg["logger"].items():
        if kind == "wandb" and multirun:
            settings = {**settings, "group": settings["group"] or folder.parent.name}
        try:
            logger = build(settings, save_dir=str(folder))
        except (ImportError, ModuleNotFoundError) as error:
            raise missing(f"logger={kind}", kind, kind) from error
        if kind == "wandb":
            logger.experiment.config.update(cfg)
        elif kind == "tensorboard":
            logger.log_hyperparams({key: str(value) for key, value in cfg.items()})
        trackers.append(Tracker(kind, logger))
    return trackers


def log_evaluation(trackers: Sequence[Tracker], folder: Path, metrics: dict[str, Any], labels: LabelSet) -> None:
    """Send the final figures; to W&B also the confusion matrix and a table of errors."""
    values = {name: value for name, value in metrics.items() if isinstance(value, float) and value == value}
    for tracker in trackers:
        tracker.logger.log_metrics(values)
        if tracker.kind == "wandb":
            _log_to_wandb(tracker.logger.experiment, folder, labels)


def _log_to_wandb(run: Any, folder: Path, labels: LabelSet) -> None:
    import wandb

    split = "test" if (folder / "predictions" / "test.jsonl").is_file() else "validation"
    rows = read_jsonl(folder / "predictions" / f"{split}.jsonl")
    if labels.task != "multi_label":
        token = labels.task == "token"
        gold = [labels.ids[name] for row in rows for name in (row["label"] if token else [row["label"]])]
        predicted = [labels.ids[name] for row in rows for name in (row["predicted"] if token else [row["predicted"]])]
        matrix = wandb.plot.confusion_matrix(
            y_true=gold, preds=predicted, class_names=list(labels.names), title=f"Confusion matrix, {split}"
        )
        run.log({f"{split}/confusion_matrix": matrix})
    wrong = [row for row in rows if row["label"] != row["predicted"]][:ERRORS_SHOWN]
    table = wandb.Table(
        columns=["text", "label", "predicted"],
        data=[[row.get("text") or " ".join(row["words"]), str(row["label"]), str(row["predicted"])] for row in wrong],
    )
    run.log({f"{split}/errors": table})

"""Experiment loggers: W&B, TensorBoard, and others of Lightning. Each is finished together with its run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from thaw.errors import missing
from thaw.files import read_jsonl
from thaw.instantiate import build, takes
from thaw.labels import LabelSet
from thaw.reporting.members import CHOSEN, is_wandb, overridden, picks_a_file
from thaw.reporting.predictions import label_pairs, row_text
from thaw.runs import known_splits, predictions_path, sync_command
from thaw.settings import flat

ERRORS_SHOWN = 100  # rows in the table of errors
log = logging.getLogger(__name__)


@dataclass
class Tracker:
    """A Lightning logger.

    Args:
        wandb: whether it is that of W&B, which is sent more than the others.
        folder: of a single run, which says how to upload what was recorded offline; a multirun says so once.
    """

    logger: Any
    wandb: bool
    folder: Path | None

    def finish(self) -> None:
        if self.wandb:
            import wandb

            # Otherwise the next run of a multirun would write into this one.
            wandb.finish()
            if self.folder and (command := sync_command(self.folder)):
                log.info("Sync       %s", command)


def make_loggers(cfg: dict[str, Any], folder: Path, multirun: bool = False) -> list[Tracker]:
    """The loggers of the ``logger`` group, which write nothing yet; W&B shows the runs of a multirun as one group.

    Raises:
        UserError: when one cannot be built, for example because its package is missing.
    """
    trackers = []
    for name, settings in cfg["logger"].items():
        if settings["_target_"].endswith(".TensorBoardLogger") and find_spec("tensorboard") is None:
            raise missing(f"logger.{name}", "tensorboard", "tensorboard")
        wandb = is_wandb(settings)
        if wandb and multirun:
            settings = {**settings, "group": settings.get("group") or folder.parent.name}
        if wandb and not settings.get("offline") and (earlier := sorted(folder.glob("wandb/run-*"))):
            # It continues on W&B as well. The folders are named run-<time>-<id>.
            settings = {"id": earlier[-1].name.split("-", 2)[2], **settings}
        # Loggers that send what they get to a server may not take a folder.
        places = {"save_dir": str(folder)} if takes(settings, "save_dir") else {}
        logger = build(settings, f"logger.{name}", **places)
        trackers.append(Tracker(logger, wandb, None if multirun else folder))
    return trackers


def log_settings(trackers: Sequence[Tracker], folder: Path, cfg: dict[str, Any]) -> None:
    """Start the loggers by sending the config; W&B also gets the files of config groups that the user chose."""
    for tracker in trackers:
        if tracker.wandb:
            # By the names that the user typed, by which a report can tell runs apart.
            chosen = {key: value for key, value in overridden(folder).items() if picks_a_file(key, cfg)}
            tracker.logger.experiment.config.update({**cfg, CHOSEN: chosen}, allow_val_change=True)
        else:
            tracker.logger.log_hyperparams(dict(flat(cfg)))


def log_evaluation(trackers: Sequence[Tracker], folder: Path, metrics: dict[str, Any], labels: LabelSet) -> None:
    """Send the final metrics; W&B also gets the confusion matrix and a table of errors."""
    values = {name: value for name, value in metrics.items() if isinstance(value, float) and value == value}
    for tracker in trackers:
        tracker.logger.log_metrics(values)
        tracker.logger.save()  # some only do so when the training ends
        if tracker.wandb:
            _log_to_wandb(tracker.logger.experiment, folder, labels)


def _log_to_wandb(run: Any, folder: Path, labels: LabelSet) -> None:
    import wandb

    split = known_splits(folder)[-1]
    rows = read_jsonl(predictions_path(folder, split))
    if labels.task != "multi_label":
        pairs = label_pairs(rows, labels)
        matrix = wandb.plot.confusion_matrix(
            y_true=[labels.ids[true] for true, _ in pairs],
            preds=[labels.ids[given] for _, given in pairs],
            class_names=list(labels.names),
            title=f"Confusion matrix, {split}",
        )
        run.log({f"{split}/confusion_matrix": matrix})
    wrong = [row for row in rows if row["label"] != row["predicted"]][:ERRORS_SHOWN]
    table = wandb.Table(
        columns=["text", "label", "predicted"],
        data=[[row_text(row), str(row["label"]), str(row["predicted"])] for row in wrong],
    )
    run.log({f"{split}/errors": table})

"""Scores the vote of several runs on the rows that all of them were tested on, or have scored since."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw import files, runs
from thaw.data.splits import SPLITS
from thaw.data.tokenizing import chunks
from thaw.errors import UserError
from thaw.inference.predictor import CHUNK_BATCHES, Predictor
from thaw.inference.voting import voted
from thaw.labels import LabelSet
from thaw.metrics.outputs import Outputs
from thaw.reporting import summary
from thaw.reporting.comparison import paired_predictions
from thaw.reporting.predictions import with_groups
from thaw.reporting.progress import counting
from thaw.scoring import Evaluation, joined_metrics, score_rows
from thaw.settings import plain

LEAST = 1e-30  # probabilities below it have this logarithm


def evaluate_together(folders: Sequence[str], settings: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Score the vote of several runs on rows that all of them have predicted; nothing is written into the runs.

    Args:
        folders: of the runs.
        settings: as for `evaluate_run`, without new data or explanations; ``split`` may be the name of new rows.

    Returns:
        (number of rows, metrics): those of the vote, with the range of the runs' own as ``baselines``.

    Raises:
        UserError: when the runs cannot vote, or were tested on different rows.
    """
    opened = [runs.open_run(folder, needs="metrics.json") for folder in folders]
    if settings["split"] in SPLITS and any(runs.load_config(run).data.fold for run in opened):
        raise UserError(
            "the runs of folds have other rows each", "Their figures together are in summary.html of the sweep."
        )
    for run in opened:
        runs.spare_data(run, settings["output"])
    result, own = score_together(opened, settings["split"])
    if settings["output"]:
        files.write_jsonl(Path(settings["output"]).expanduser(), result.predictions)
    return len(result.predictions), own


def score_together(folders: Sequence[Path], split: str) -> tuple[Evaluation, dict[str, Any]]:
    """The results of the vote, and its metrics as `headline_rows` shows them: beside them what the runs score alone.

    Raises:
        UserError: when the runs cannot vote, or were not tested on the same rows.
    """
    (labels, *_), predicted = paired_predictions(folders, split)
    predictor = Predictor.from_runs(folders)
    texts, gold, places, groups = runs.unpacked(with_groups(predicted), labels)
    outputs = outputs_of(average(predictor, texts, split), gold, labels)
    predictor.temperature = None  # that of the first run does not calibrate the vote
    result = score_rows(predictor, outputs, texts, places, plain(runs.load_config(folders[0])), groups)
    own = joined_metrics({split: result})
    alone = [files.read_json(runs.metrics_path(folder, split)) for folder in folders]
    spread: dict[str, Callable[[list[float]], Any]] = {"mean alone": np.mean, "lowest": np.min, "highest": np.max}
    beside: dict[str, dict[str, float]] = {name: {} for name in spread}
    for figure in summary.headline_names(own, [split]):
        known = [metrics[key] for metrics in alone if metrics.get(key := f"{split}/{figure}") is not None]
        for name, summed in spread.items() if len(known) == len(alone) else ():
            beside[name][figure] = float(summed(known))
    return result, {**own, "baselines": {split: beside}}


def average(predictor: Predictor, texts: Sequence[Any], name: str) -> np.ndarray:
    """The uncalibrated probabilities of some rows, or of the words of all of them, averaged over the runs.

    Args:
        name: of the rows, shown with the progress.
    """
    parts = []
    with counting(len(texts), f"evaluating {name}") as progress:
        for chunk in chunks(texts, CHUNK_BATCHES * predictor.batch_size):
            parts.append(voted(predictor, chunk)[1])
            progress(len(chunk))
    return np.concatenate(parts)


def outputs_of(scores: np.ndarray, gold: Sequence[Any], labels: LabelSet) -> Outputs:
    """Averaged probabilities as the outputs of a network whose probabilities they are.

    Args:
        scores: as `average` gives them.
        gold: an id, a list of ids, or an id for each word.
    """
    logits = np.log(np.maximum(scores, LEAST))  # NaN stays NaN
    if labels.task == "multi_label":
        logits -= np.log(np.maximum(1 - scores, LEAST))
    logits, numbers = logits.astype(np.float32), np.arange(len(gold))
    if labels.task == "sequence":
        return Outputs(numbers, logits, np.array(gold))
    if labels.task == "multi_label":
        return Outputs(numbers, logits, np.array([np.isin(range(len(labels)), own) for own in gold], dtype=np.int64))
    sentences = np.split(logits, np.cumsum([len(own) for own in gold])[:-1])
    words = [np.flatnonzero(~np.isnan(own).any(-1)) for own in sentences]
    read = [own[at] for own, at in zip(sentences, words, strict=True)]
    return Outputs(numbers, read, [np.array(own) for own in gold], words)

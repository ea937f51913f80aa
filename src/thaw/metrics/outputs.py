"""A network's outputs for the rows of a split, and their metrics: the same code in training and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thaw.errors import UserError
from thaw.labels import IGNORED, LabelSet
from thaw.metrics.classification import best_thresholds, multi_label_metrics, sequence_metrics, tag_metrics
from thaw.metrics.entities import entity_metrics
from thaw.metrics.probabilities import averaged, probabilities


@dataclass(frozen=True)
class Outputs:
    """Logits and true labels of some rows, or in token tasks of some sentences.

    Args:
        rows: their numbers.
        logits: sequence and multi-label: (rows, labels). Token: a (words, labels) array for each sentence, for the
            words that have tokens.
        gold: sequence: ids (rows,). Multi-label: 0 or 1 (rows, labels). Token: an id array for each sentence.
        words: token: the word that each line of the logits belongs to; else empty.
    """

    rows: np.ndarray
    logits: Any
    gold: Any
    words: Sequence[np.ndarray] = ()

    @classmethod
    def of_batch(cls, batch: dict[str, torch.Tensor], logits: torch.Tensor) -> "Outputs":
        """The outputs of one batch, moved to the CPU."""
        values = logits.detach().float().cpu().numpy()
        numbers = batch.get("sentences", batch["rows"]).cpu().numpy()
        if "words" not in batch:
            return cls(numbers, values, batch["labels"].cpu().numpy())
        words, tags = batch["words"].cpu().numpy(), batch["tags"].cpu().numpy()
        at = [row >= 0 for row in words]
        return cls(
            numbers,
            [value[own] for value, own in zip(values, at, strict=True)],
            [row[row != IGNORED] for row in tags],
            [row[own] for row, own in zip(words, at, strict=True)],
        )

    @classmethod
    def join(cls, parts: Sequence["Outputs"]) -> "Outputs":
        """All parts in the order of their numbers: the windows of each sentence joined, those of each text averaged."""
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows, kind="stable")
        if isinstance(parts[0].logits, np.ndarray):
            values = np.concatenate([part.logits for part in parts])[order]
            numbers, firsts = np.unique(rows[order], return_index=True)
            true = np.concatenate([part.gold for part in parts])[order]
            return cls(numbers, averaged(values, rows[order]), true[firsts])
        every = [row for part in parts for row in zip(part.logits, part.gold, part.words, strict=True)]
        sentences, starts = np.unique(rows[order], return_index=True)
        logits, gold, words = [], [], []
        for windows in np.split(order, starts[1:]):
            own = np.concatenate([every[i][2] for i in windows])
            rank = np.argsort(own)  # several processes may have read windows out of their order
            logits.append(np.concatenate([every[i][0] for i in windows])[rank])
            gold.append(every[windows[0]][1])
            words.append(own[rank])
        return cls(sentences, logits, gold, words)

    def tags(self, labels: LabelSet) -> list[np.ndarray]:
        """Token tasks: the predicted id of every word; words without a token have O, or `UNREAD`."""
        result = []
        for logits, gold, words in zip(self.logits, self.gold, self.words, strict=True):
            tags = np.full(len(gold), labels.outside)
            tags[words] = logits.argmax(-1)
            result.append(tags)
        return result

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits and true labels of every row, or for token tasks of every word that has a token."""
        if not self.words:
            return self.logits, self.gold
        gold = np.concatenate([own[words] for own, words in zip(self.gold, self.words, strict=True)])
        return np.concatenate(self.logits), gold

    def loss(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        """The loss over all rows, or over the first sub-tokens of all words."""
        logits, gold = self.flat()
        return float(loss(torch.from_numpy(np.ascontiguousarray(logits)), torch.from_numpy(gold)))

    def terms(
        self, terms: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The losses and weights of the rows, or words, in the order of `flat`."""
        logits, gold = self.flat()
        losses, weights = terms(torch.from_numpy(np.ascontiguousarray(logits)), torch.from_numpy(gold))
        return losses.numpy(), weights.numpy()


def compute_metrics(
    outputs: Outputs, labels: LabelSet, *, strict: bool = False, thresholds: Sequence[float] | None = None
) -> dict[str, float]:
    """All metrics of the task.

    Args:
        outputs: of a whole split, each row once.
        strict: entities must be well-formed IOB2 (token tasks).
        thresholds: for multi-label tasks; None takes those that are best for these rows.

    Raises:
        UserError: when a logit is NaN or infinite.
    """
    if not np.isfinite(np.concatenate(outputs.logits)).all():
        raise UserError(
            "the network's outputs are NaN or infinite: training has diverged",
            "Lower optimizer.lr, or use trainer.precision=32-true.",
        )
    if labels.task == "sequence":
        return sequence_metrics(probabilities(outputs.logits, labels), outputs.gold, labels)
    if labels.task == "multi_label":
        scores = probabilities(outputs.logits, labels)
        chosen = best_thresholds(scores, outputs.gold) if thresholds is None else thresholds
        return multi_label_metrics(scores, outputs.gold, chosen, labels)
    predicted = outputs.tags(labels)
    if not labels.entities:
        return tag_metrics(np.concatenate(predicted), np.concatenate(outputs.gold), labels)
    names = np.array([*labels.names, "O"])  # the last for `UNREAD`
    return entity_metrics([names[row] for row in predicted], [names[row] for row in outputs.gold], labels, strict)


def metric_names(labels: LabelSet) -> list[str]:
    """The names of the metrics that `compute_metrics` gives for a task."""
    return list(compute_metrics(one_of_each(labels), labels))


def one_of_each(labels: LabelSet) -> Outputs:
    """Outputs for a row, or a word, of each label."""
    ids = np.arange(len(labels))
    logits = np.eye(len(labels), dtype=np.float32)
    if labels.task == "token":
        return Outputs(ids[:1], [logits], [ids], [ids])
    return Outputs(ids, logits, logits.astype(np.int64) if labels.task == "multi_label" else ids)

"""Compares an exported model with torch on rows of the run: whether it gives the same results, and how fast."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from thaw.data.encoding import Encoded
from thaw.inference.onnx import BATCH_SIZE, cpu_threads
from thaw.inference.predictor import Predictor
from thaw.labels import LabelSet
from thaw.metrics.outputs import Outputs, compute_metrics

ALONE = 4  # so many of the longest rows are checked in batches of their own
SINGLE = 20  # texts for the latency in each round
ROUNDS = 3
SECONDS = 5.0  # that the slowest predictor may take for one pass over the texts


class Comparison:
    """Compares other predictors with the run's own network on labelled rows."""

    def __init__(self, reference: Predictor, encoded: Encoded, strict: bool) -> None:
        self.reference, self.encoded, self.strict = reference, encoded, strict
        self.labels: LabelSet = reference.labels
        self.expected = reference.outputs(encoded)

    def own(self) -> dict[str, Any]:
        return {"metrics": self._metrics(self.expected)}

    def of(self, other: Predictor, batches: list[np.ndarray] | None = None) -> dict[str, Any]:
        """The largest score difference, the share of rows (words, for token tasks) with the same label, and metrics."""
        found = other.outputs(self.encoded, batches=batches)
        scores = [self.reference.probabilities(np.concatenate(one.logits) if one.words else one.logits)
                  for one in (self.expected, found)]  # fmt: skip
        chosen = [self._decide(one) for one in scores]
        return {
            "score_difference": float(np.abs(scores[0] - scores[1]).max()),
            "same_labels": float((chosen[0] == chosen[1]).all(-1).mean()),
            "metrics": self._metrics(found),
        }

    def _decide(self, scores: np.ndarray) -> np.ndarray:
        if self.labels.task == "multi_label":
            return scores >= np.array(self.reference.thresholds)
        return scores.argmax(-1)[:, None]

    def _metrics(self, outputs: Outputs) -> dict[str, float]:
        """The main metrics of the split: accuracy and F1."""
        values = compute_metrics(outputs, self.labels, strict=self.strict, thresholds=self.reference.thresholds)
        return {name: values[name] for name in ("accuracy", "f1") if name in values}


def mixed_batches(encoded: Encoded) -> list[np.ndarray]:
    """Every row once: some alone, which need no mask, the others in batches of short and long rows mixed."""
    alone, order = np.split(np.argsort(-encoded.kept, kind="stable"), [min(ALONE, len(encoded) // 2)])
    count = -(-len(order) // BATCH_SIZE)
    return [*alone[:, None], *(order[first::count] for first in range(count))]


def measure(predictors: Mapping[str, Predictor], texts: Sequence[str]) -> dict[str, Any]:
    """Rows per second, and the latency of a single text, from text to label.

    The predictors take turns, so that a busy spell of the machine affects all of them; and they do so in blocks of
    texts, since the threads of each runtime spin for a while after a call and slow down the next one.

    Returns:
        For each predictor ``rows_per_second`` (median of the rounds), ``p50_ms``, ``p95_ms``, ``batch_size``; besides,
        ``threads`` and ``texts``.
    """
    threads = torch.get_num_threads()
    if threads != cpu_threads():  # setting even the same number makes torch a tenth slower
        torch.set_num_threads(cpu_threads())
    try:
        latency: dict[str, list[float]] = {name: [] for name in predictors}
        for turn in range(ROUNDS):
            for name, predictor in predictors.items():
                predictor(list(texts[:2]))  # the first call allocates
                single = texts[turn * SINGLE : (turn + 1) * SINGLE] or texts[:SINGLE]
                latency[name] += [_seconds(predictor, [text]) for text in single]
        slowest = max(statistics.median(times) for times in latency.values())
        several = list(texts[: max(8, int(SECONDS / slowest))])
        rounds: dict[str, list[float]] = {name: [] for name in predictors}
        for _ in range(ROUNDS):
            for name, predictor in predictors.items():
                rounds[name].append(_seconds(predictor, several))
    finally:
        if threads != cpu_threads():
            torch.set_num_threads(threads)
    result: dict[str, Any] = {"threads": cpu_threads(), "texts": len(several)}
    for name, predictor in predictors.items():
        times = sorted(latency[name])
        result[name] = {
            "rows_per_second": len(several) / statistics.median(rounds[name]),
            "p50_ms": 1e3 * statistics.median(times),
            "p95_ms": 1e3 * times[round(0.95 * (len(times) - 1))],
            "batch_size": predictor.batch_size,
        }
    return result


def _seconds(predictor: Predictor, texts: list[str]) -> float:
    start = time.perf_counter()
    predictor(texts)
    return time.perf_counter() - start

"""What a run has to beat, on the rows that it is tested on: figures of what learns little or nothing."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from thaw.cache import cached_array
from thaw.data.module import TextDataModule
from thaw.evaluation import predict_rows
from thaw.inference.predictor import Predictor, torch_logits
from thaw.labels import LabelSet
from thaw.metrics.baselines import bag_of_words, frequent_tags, majority
from thaw.metrics.outputs import Outputs, figures
from thaw.models.prefix import FrozenPrefix

MAJORITY, BAG_OF_WORDS, FREQUENT_TAGS, UNTRAINED = (
    "majority class",
    "TF-IDF, logistic regression",
    "most frequent tag",
    "before training",
)


def baseline_figures(
    network: Any,
    data: TextDataModule,
    config: dict[str, Any],
    split: str,
    prefix: Callable[[Any], FrozenPrefix] | None = None,
) -> dict[str, Any]:
    """Figures of the whole split, without those by label, for each baseline.

    Args:
        network: the encoder with its head as it was before training.
        data: its rows for training and for the test.
        config: of the run.
        split: to score.
        prefix: gives the frozen prefix of a network, where training has computed it.
    """
    labels, train, rows = data.labels, data.rows["train"][:], data.rows[split][:]
    texts, gold = rows["text"], rows["label"]
    predictor = Predictor(
        torch_logits(network),
        data.tokenizer,
        labels,
        max_length=data.max_length,
        batch_size=config["data"]["eval_batch_size"],
    )
    untrained = predict_rows(predictor, texts, gold, f"{split} before training")

    def fit_bag_of_words() -> np.ndarray:
        return bag_of_words(train["text"], train["label"], texts, labels)

    if labels.task == "token":
        found: dict[str, Any] = {
            MAJORITY: [np.tile(majority(labels), (len(row), 1)) for row in texts],
            FREQUENT_TAGS: frequent_tags(train["text"], train["label"], texts, labels),
        }
        words = [np.arange(len(row)) for row in texts]
    else:
        found = {
            MAJORITY: np.tile(majority(labels), (len(texts), 1)),
            # The same for all runs on this data, such as those of a sweep.
            BAG_OF_WORDS: cached_array("baselines", data_key(data, split), fit_bag_of_words),
        }
        words = []
    outputs = {name: Outputs(untrained.rows, logits, untrained.gold, words) for name, logits in found.items()}
    return {name: headline(own, labels, config) for name, own in {**outputs, UNTRAINED: untrained}.items()}


def data_key(data: TextDataModule, split: str) -> str:
    """Changes with the rows of training and of a split, with the labels, and with the library that learns from them."""
    import sklearn

    parts = [data.summary["splits"][name]["fingerprint"] for name in ("train", split)]
    return hashlib.sha256(repr([*parts, data.labels, sklearn.__version__]).encode()).hexdigest()[:32]


def headline(outputs: Outputs, labels: LabelSet, config: dict[str, Any]) -> dict[str, float]:
    """The figures of the whole split; decisions between 0 and 1 fall at one half."""
    found = figures(outputs, labels, strict=config["strict_iob2"], thresholds=[0.5] * len(labels))
    return {name: value for name, value in found.items() if "/" not in name}

"""Baselines that a run has to beat: the majority class, a bag of words, each word's most frequent tag."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thaw.cache import cached_array
from thaw.labels import LabelSet
from thaw.sampling import evenly

if TYPE_CHECKING:
    from thaw.metrics.outputs import Outputs

MAJORITY = "majority class"
BAG_OF_WORDS = "TF-IDF, logistic regression"
FREQUENT_TAGS = "most frequent tag"
UNTRAINED = "before training"
VERSION = 1  # of what is computed here; part of the cache key
ROWS = 50_000  # at most so many training rows for the bag of words: enough for a baseline in seconds
FEATURES = 50_000
SMALLEST = 1e-6  # probability of what was never seen, so that it has a logarithm


def baseline_outputs(
    untrained: "Outputs",
    train: Mapping[str, Sequence[Any]],
    rows: Mapping[str, Sequence[Any]],
    labels: LabelSet,
    key: Sequence[str],
) -> dict[str, "Outputs"]:
    """The outputs of each baseline.

    Args:
        untrained: outputs of the network for the rows before training.
        train: ``text`` and ``label`` of the training rows.
        rows: ``text`` and ``label`` of the rows to score.
        key: fingerprints of both sets of rows.
    """
    from thaw.metrics.outputs import Outputs  # needs torch, which no page does

    texts = rows["text"]
    if labels.task == "token":
        logits_of: dict[str, Any] = {
            MAJORITY: [np.tile(majority(labels), (len(row), 1)) for row in texts],
            FREQUENT_TAGS: frequent_tags(train["text"], train["label"], texts, labels),
        }
        words = [np.arange(len(row)) for row in texts]
    else:
        import sklearn

        content = hashlib.sha256(repr([VERSION, *key, labels, sklearn.__version__]).encode()).hexdigest()[:32]
        logits_of = {
            MAJORITY: np.tile(majority(labels), (len(texts), 1)),
            # Cached, since it is the same for all runs on this data, such as those of a sweep.
            BAG_OF_WORDS: cached_array(
                "baselines", content, lambda: bag_of_words(train["text"], train["label"], texts, labels)
            ),
        }
        words = []
    outputs = {name: Outputs(untrained.rows, logits, untrained.gold, words) for name, logits in logits_of.items()}
    return {**outputs, UNTRAINED: untrained}


def baseline_metrics(beside: Mapping[str, "Outputs"], labels: LabelSet, *, strict: bool) -> dict[str, dict[str, Any]]:
    """The metrics of each baseline, without those by label.

    Args:
        beside: the outputs of each.
        strict: score entities as ``strict_iob2`` does.
    """
    from thaw.metrics.outputs import compute_metrics

    half = [0.5] * len(labels)  # since best thresholds would be fitted to these very rows
    scored = {name: compute_metrics(own, labels, strict=strict, thresholds=half) for name, own in beside.items()}
    return {name: {kind: own[kind] for kind in own if "/" not in kind} for name, own in scored.items()}


def majority(labels: LabelSet) -> np.ndarray:
    """The same log-odds or log-probabilities (labels,) for every row: how often each label occurs in training.

    They predict the most frequent label; in multi-label tasks, the labels of more than half of the rows.
    """
    share = np.clip(np.array(labels.counts) / max(labels.rows, 1), SMALLEST, 1 - SMALLEST)
    if labels.task == "multi_label":
        return np.log(share) - np.log1p(-share)
    return np.log(np.clip(np.array(labels.counts) / max(sum(labels.counts), 1), SMALLEST, 1))


def bag_of_words(texts: Sequence[str], gold: Sequence[object], others: Sequence[str], labels: LabelSet) -> np.ndarray:
    """Logits (rows, labels) of logistic regression on TF-IDF of words.

    Args:
        texts, gold: the training rows; if there are more than `ROWS`, an even sample is used.
        others: the texts to predict.
    """
    import regex
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    chosen = evenly(len(texts), ROWS)
    # `regex` instead of `re`, which does not count vowel signs of Indic scripts and Arabic as word characters.
    tokens = regex.compile(r"\w+|[^\w\s]").findall
    words = TfidfVectorizer(sublinear_tf=True, max_features=FEATURES, tokenizer=tokens, token_pattern=None)
    model = LogisticRegression(C=10.0, max_iter=200)
    result = np.full((len(others), len(labels)), np.log(SMALLEST))
    features = words.fit_transform([texts[i] for i in chosen])
    if labels.task == "multi_label":
        truth = np.zeros((len(chosen), len(labels)), dtype=np.int64)
        for line, i in zip(truth, chosen, strict=True):
            line[list(gold[i])] = 1
        varied = np.flatnonzero((truth.min(0) == 0) & (truth.max(0) == 1))  # the others have only one class
        result[:] = majority(labels)
        if not len(varied):
            return result
        fitted = OneVsRestClassifier(model).fit(features, truth[:, varied])
        scores = fitted.decision_function(words.transform(others))
        result[:, varied] = scores.reshape(len(others), -1)
        return result
    own = np.array([gold[i] for i in chosen])
    if (own == own[0]).all():  # a sample may lack the rare classes
        result[:] = majority(labels)
        return result
    model.fit(features, own)
    result[:, model.classes_] = model.predict_log_proba(words.transform(others))
    return result


def frequent_tags(
    sentences: Sequence[Sequence[str]], gold: Sequence[Sequence[int]], others: Sequence[Sequence[str]], labels: LabelSet
) -> list[np.ndarray]:
    """Log-probabilities (words, labels) of each sentence: how often each word has each tag in training.

    An unknown word has the distribution of all training words.
    """
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for words, tags in zip(sentences, gold, strict=True):
        for word, tag in zip(words, tags, strict=True):
            seen[word][tag] += 1
    overall = majority(labels)
    known: dict[str, np.ndarray] = {}
    for word, counts in seen.items():
        share = np.full(len(labels), SMALLEST)
        for tag, count in counts.items():
            share[tag] = count / counts.total()
        known[word] = np.log(share)
    return [np.array([known.get(word, overall) for word in words]).reshape(-1, len(labels)) for words in others]

"""How well an encoder separates the classes before fine-tuning: a linear probe (Alain and Bengio 2016), projections."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from thaw.cache import cached_array
from thaw.data.batching import make_loader
from thaw.data.module import TextDataModule
from thaw.data.ragged import sorted_batches
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.metrics.classification import sequence_metrics
from thaw.models.checksum import checksum
from thaw.models.encoder import body_of, load_encoder
from thaw.models.forward import evaluating
from thaw.models.onednn import use_onednn
from thaw.reporting.progress import counting
from thaw.sampling import evenly

PROJECTED = 1_000  # points of a projection
SMALLEST = 1e-6  # probability of a label that the training rows lack
NEIGHBOURS = 30  # perplexity of t-SNE


def features(data: TextDataModule, encoder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A linear probe and two projections of the encoder's text vectors before fine-tuning.

    Raises:
        UserError: when the probe would have one class to learn.
    """
    from sklearn.metrics import confusion_matrix

    labels = data.labels
    vectors, gold = _vectors(data, encoder, settings)
    if len(np.unique(gold["train"])) < 2:
        raise UserError(
            f"feature_rows={settings['feature_rows']}: all these rows have one label", "Raise feature_rows."
        )
    scores = linear_probe(vectors["train"], gold["train"], vectors["validation"], labels)
    truth, predicted = gold["validation"], scores.argmax(-1)
    confusion = confusion_matrix(truth, predicted, labels=range(len(labels)))
    figures = sequence_metrics(scores, truth, labels)
    majority = np.bincount(gold["train"]).argmax()
    shown = evenly(len(truth), PROJECTED)
    return {
        "pooling": settings["pooling"],
        "rows": {split: len(ids) for split, ids in gold.items()},
        "size": int(vectors["train"].shape[1]),
        "accuracy": figures["accuracy"],
        "f1_macro": figures["f1_macro"],
        "majority": float((truth == majority).mean()),
        "confusion": confusion.tolist(),
        "labels": truth[shown].tolist(),
        "projections": {
            name: np.round(points, 3).tolist() for name, points in projections(vectors["validation"][shown]).items()
        },
    }


def _vectors(
    data: TextDataModule, encoder: Path, settings: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The vectors of training and validation rows, at most ``feature_rows`` of each, and their label ids."""
    labels, pooling = data.labels, settings["pooling"]
    torch.manual_seed(0)
    network: Any = load_encoder(encoder, labels, settings["model"])
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    use_onednn(network)
    body = body_of(network)[1]
    libraries = (torch.__version__, transformers.__version__)
    key_of_network = checksum(body.named_parameters(), libraries, body.config.to_dict(), pooling, labels.pairs)
    vectors, gold = {}, {}
    for split in ("train", "validation"):
        encoded = data.encoded[split]
        chosen = evenly(len(encoded), settings["feature_rows"])
        batches = [chosen[batch].tolist() for batch in sorted_batches(encoded.kept[chosen], 64)]
        loader = make_loader(encoded, batches, data.tokenizer.pad_token_id)
        key = checksum([("rows", chosen), ("ids", encoded.ids), ("offsets", encoded.offsets)], key_of_network)
        with counting(len(chosen), f"vectors of {split}") as progress:
            make = partial(text_vectors, network, loader, pooling, progress)
            vectors[split] = np.asarray(cached_array("features", key, make))
        gold[split] = np.asarray(encoded.labels)[chosen]
    return vectors, gold


def text_vectors(
    network: Any, batches: Iterable[dict[str, Tensor]], pooling: str, progress: Callable[[int], None]
) -> np.ndarray:
    """One vector per text, pooled from the last hidden states: (rows, size), in the order of the row numbers.

    Args:
        network: an encoder with a head, which is not used.
        batches: each row once.
        pooling: ``cls`` takes the first token's state, ``mean`` the mean over all tokens.
        progress: called with the number of rows just done.
    """
    body, device = body_of(network)[1], next(network.parameters()).device
    rows, vectors = [], []
    with evaluating(network):
        for batch in batches:
            ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            hidden = body(input_ids=ids, attention_mask=mask).last_hidden_state
            if pooling == "mean":
                weights = mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1)
            else:
                pooled = hidden[:, 0]
            rows.append(batch["rows"].numpy())
            vectors.append(pooled.float().cpu().numpy())
            progress(len(pooled))
    return np.concatenate(vectors)[np.argsort(np.concatenate(rows))]


def linear_probe(vectors: np.ndarray, gold: np.ndarray, others: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Probabilities (rows, labels) for other vectors, by logistic regression on standardised vectors.

    Args:
        vectors: (rows, size), of the training rows.
        gold: their label ids.
        others: (rows, size).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(vectors, gold)
    result: np.ndarray = np.full((len(others), len(labels)), SMALLEST)
    result[:, model.classes_] = model.predict_proba(others)
    return result


def projections(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Vectors in two dimensions, (rows, 2): by PCA, and by t-SNE if there are enough rows.

    Neither uses the labels, so that classes appear separate only if the vectors separate them.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(vectors.shape) < 2:
        return {}
    found = {"PCA": PCA(2, random_state=0).fit_transform(vectors)}
    if len(vectors) > 3 * NEIGHBOURS:
        found["t-SNE"] = TSNE(perplexity=NEIGHBOURS, init="pca", random_state=0).fit_transform(vectors)
    return found

"""How well fixed text vectors separate classes: a linear probe (Alain and Bengio 2016) and projections."""

import numpy as np

from thaw.labels import LabelSet

SMALLEST = 1e-6  # probability of a label that the training rows lack
NEIGHBOURS = 30  # perplexity of t-SNE


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

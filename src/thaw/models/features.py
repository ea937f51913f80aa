"""Text vectors of an encoder that is not fine-tuned."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

from thaw.models.encoder import body_of
from thaw.models.forward import evaluating


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

"""Even samples of rows. Needs only numpy."""

import numpy as np


def evenly(total: int, most: int) -> np.ndarray:
    """At most ``most`` of the numbers below ``total``, evenly spread."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(np.int64)

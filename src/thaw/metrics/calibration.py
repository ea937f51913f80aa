"""Whether confidence can be believed."""

import numpy as np


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017), by torchmetrics.

    Args:
        confidence: probability of the predicted label, (rows,).
        correct: whether it was right, (rows,).
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    # With the confidence as the probability of being right, the binary error is the multi-class one.
    return float(
        binary_calibration_error(
            torch.from_numpy(np.asarray(confidence, dtype=np.float64)), torch.from_numpy(correct.astype(np.int64)), bins
        )
    )

"""Model FLOPs utilisation (Chowdhery et al. 2022, appendix B): FLOPs of the model relative to those of the machine.

Padding, and what is computed twice, count for nothing; so the same run at half the seconds has twice the utilisation.
"""

import time
from typing import Any

import numpy as np
import torch

from thaw.models.encoder import layers_of
from thaw.models.onednn import preferred, product

# Dense bfloat16 rates of the data sheets, FLOPs a second; what is not listed is measured.
RATES = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "T4": 65e12}


def forward_flops(network: Any, lengths: np.ndarray) -> float:
    """Floating-point operations of one pass of the layers over texts; embeddings and head are left out.

    Args:
        network: of which the layers' matrices and the size of the hidden states are read.
        lengths: real tokens of each text.
    """
    layers = [layer for _, layer in layers_of(network)]
    weights = sum(parameter.numel() for layer in layers for parameter in layer.parameters() if parameter.ndim == 2)
    attention = 2 * len(layers) * network.config.hidden_size  # queries by keys, weights by values
    lengths = lengths.astype(np.float64)
    return float(2 * (weights * lengths.sum() + attention * (lengths**2).sum()))


def machine_rate() -> float:
    """FLOPs per second: from the data sheet if the GPU is known, else the best of some large matrix products."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        words = torch.cuda.get_device_name().replace("-", " ").split()
        if known := [rate for name, rate in RATES.items() if name in words]:
            return known[0]
    size = 2048
    matrix = torch.randn(size, size, device=device)
    multiply = product if device == "cpu" and preferred() else torch.matmul
    best = float("inf")
    for _ in range(10):
        clock = time.perf_counter()
        multiply(matrix, matrix)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - clock)
    return 2 * size**3 / best


def utilisation(network: Any, train: np.ndarray, validation: np.ndarray, epochs: int, seconds: float) -> float:
    """The utilisation of full fine-tuning with a validation after each epoch.

    Args:
        train, validation: real tokens of each text.
        seconds: of all epochs and validations. A backward pass counts as two forward passes.
    """
    needed = epochs * (3 * forward_flops(network, train) + forward_flops(network, validation))
    return needed / seconds / machine_rate()

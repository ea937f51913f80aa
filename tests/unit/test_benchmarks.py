"""The benchmarks' arithmetic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.pairs import ratios
from benchmarks.utilisation import forward_flops
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"])
def test_flops_are_those_that_torch_counts_in_the_layers(architecture: str, encoders: Callable[[str], Path]) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(encoders(architecture), attn_implementation="eager")
    ids = torch.arange(5, 26).view(3, 7)
    with FlopCounterMode(display=False) as counter:
        network(input_ids=ids, attention_mask=torch.ones_like(ids))
    counts = counter.get_flop_counts()
    layers = [sum(ops.values()) for name, ops in counts.items() if name.rpartition(".")[2].isdigit()]
    assert forward_flops(network, np.array([7, 7, 7])) == sum(layers) > 0


def test_ratios_are_taken_pair_by_pair() -> None:
    rows = {"thaw": [{"seconds": 1.0}, {"seconds": 4.0}], "peer": [{"seconds": 3.0}, {"seconds": 4.0}]}
    assert ratios(rows)["peer"] == {"ratio": 2.0, "least": 1.0, "most": 3.0}

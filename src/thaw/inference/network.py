"""Loads a run's fine-tuned torch network, and wraps it as a function of batches."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer

from thaw.errors import UserError
from thaw.files import damaged
from thaw.inference.predictor import Arrays, Logits
from thaw.models.encoder import auto_model, body_of
from thaw.models.segments import add_segment_ids
from thaw.runs import labels_of, load_config
from thaw.values import PREDICTS_IN

DTYPES = dict(zip(PREDICTS_IN, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def load_network(run: Path, **options: Any) -> tuple[Any, Any]:
    """The fine-tuned network of a run in float32, and its tokenizer.

    Args:
        options: further arguments of transformers' ``from_pretrained``.

    Raises:
        UserError: when a file of the model is damaged.
    """
    labels = labels_of(run)
    auto, trust = auto_model(labels.task), bool(OmegaConf.select(load_config(run), "model.trust_remote_code"))
    folder = str(run / "model")
    try:
        network = auto.from_pretrained(folder, dtype=torch.float32, trust_remote_code=trust, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(run / "model", error) from error
    if labels.pairs:
        add_segment_ids(body_of(network)[1], tokenizer)
    return network, tokenizer


def torch_logits(network: Any, precision: str = "32-true") -> Logits:
    """A transformers encoder with a head as a function of batches, on the GPU if there is one.

    Args:
        precision: as in training; other than ``32-true``, linear layers keep their weights in 16 bits from now on.

    Raises:
        UserError: when the precision is not known, or not on this device.
    """
    if precision not in PREDICTS_IN:
        raise UserError(f"precision={precision} is not known", f"Choose one of: {', '.join(PREDICTS_IN)}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "16-mixed" and device.type == "cpu":
        raise UserError("precision=16-mixed is for GPUs", "Give bf16-mixed, or leave it out.")
    dtype = DTYPES[precision]
    network = network.to(device).eval()
    if dtype != torch.float32:  # once, where autocast alone would convert them for every batch
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)

    @torch.inference_mode()
    @torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    def compute(batch: Arrays) -> np.ndarray:
        ids, mask = (torch.from_numpy(values).to(device) for values in batch)
        return network(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()

    return partial(map, compute)

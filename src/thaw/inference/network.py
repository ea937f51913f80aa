"""Loads a run's fine-tuned torch network, and wraps it as a function of batches."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from transformers import AutoTokenizer

from thaw.files import damaged
from thaw.inference.predictor import Arrays, Logits
from thaw.models.encoder import auto_model, body_of
from thaw.models.segments import add_segment_ids
from thaw.runs import labels_of, load_config


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


def torch_logits(network: Any) -> Logits:
    """A transformers encoder with a head as a function of batches, on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()

    @torch.inference_mode()
    def compute(batch: Arrays) -> np.ndarray:
        ids, mask = (torch.from_numpy(values).to(device) for values in batch)
        return network(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()

    return partial(map, compute)

"""The head of a fine-tuned encoder is taken over by the names of its labels, not by their positions."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.labels import folded

UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls labels without a name
WEIGHTS = "model.safetensors"


def labels_of_head(config: Any, folder: Path) -> tuple[str, ...]:
    """The labels that a saved encoder can tell apart, in the order of its head's rows; none if it has no such head.

    Args:
        config: as it was saved.
        folder: that holds it.
    """
    architecture = (getattr(config, "architectures", None) or [""])[0]
    names = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
    if "Classification" not in architecture or any(map(UNNAMED.fullmatch, names)):
        return ()
    return names if (folder / WEIGHTS).is_file() else ()


def taken_over(before: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """The row of the saved head for each label; None for labels that it does not know.

    Names may differ in case and blanks, unless that is what tells two labels apart.
    """
    exact = {name: row for row, name in enumerate(before)}
    alike = Counter(map(folded, before))
    loose = {folded(name): row for row, name in enumerate(before) if alike[folded(name)] == 1}
    return [exact.get(name, loose.get(folded(name))) for name in names]


def take_over(network: Any, folder: Path, before: Sequence[str], names: Sequence[str]) -> None:
    """Give each label the weights that the saved head has for its name; labels new to it start anew. In place.

    Args:
        network: as transformers loaded it, with one output per name.
        before: the labels of the saved head, see `labels_of_head`.
        names: those of the network.
    """
    rows = taken_over(before, names)
    outputs = [(name, layer) for name, layer in network.named_modules()
               if isinstance(layer, nn.Linear) and layer.out_features == len(names)]  # fmt: skip
    if rows == list(range(len(before))) or not outputs:
        return
    prefix, layer = outputs[-1]
    saved = _tensors(folder, [f"{prefix}.{name}" for name, _ in layer.named_parameters()])
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            known = saved.get(f"{prefix}.{name}")
            if known is None or known.shape != (len(before), *parameter.shape[1:]):
                continue
            std = getattr(network.config, "initializer_range", 0.02) if parameter.ndim > 1 else 0.0
            for label, row in enumerate(rows):
                parameter[label] = torch.randn_like(parameter[label]) * std if row is None else known[row]


def _tensors(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118

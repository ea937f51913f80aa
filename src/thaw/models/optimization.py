"""Parameter groups, layer-wise learning rates, schedules."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from thaw.errors import UserError
from thaw.models.encoder import Block


def learning_rates(parts: Sequence[Block], names: set[str], optimizer: dict[str, Any]) -> dict[str, float]:
    """The learning rate of each parameter that trains.

    The head learns at ``head_lr`` if that is set, else at ``lr``; the top layer learns at ``lr``, every block below at
    ``layer_decay`` times the rate of the one above (Clark et al. 2020, ELECTRA).
    """
    lr, head_lr, decay = optimizer["lr"], optimizer.get("head_lr"), optimizer.get("layer_decay")
    rates = {}
    for depth, part in enumerate(reversed(parts)):
        rate = (head_lr or lr) if depth == 0 else lr * (decay or 1.0) ** (depth - 1)
        rates.update({name: float(rate) for name, _ in part.parameters() if name in names})
    return rates


def parameter_groups(parts: Sequence[Block], rates: dict[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """One optimizer group for each learning rate, with and without decay.

    Matrices decay and vectors (biases, norms) do not, judged by their dimensions, since names differ by architecture.
    The vectors of IA3 are stored as matrices; they start at 1, and decay would switch their layers off.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in (pair for part in parts for pair in part.parameters()):
        if name in rates:
            decays = parameter.ndim >= 2 and "ia3_" not in name
            groups.setdefault((rates[name], decays), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": weight_decay if decays else 0.0}
        for (rate, decays), members in groups.items()
    ]


def make_schedule(optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int) -> Any:
    """A schedule of transformers over a number of optimizer steps.

    Args:
        settings: ``schedule`` (one of `thaw.settings.SCHEDULES`), ``warmup_steps`` or ``warmup_ratio``.
        steps: optimizer steps of the whole run.
    """
    from transformers import get_scheduler

    kind, ratio, warmup = settings["schedule"], settings.get("warmup_ratio") or 0.0, settings.get("warmup_steps")
    try:
        return get_scheduler(
            kind,
            optimizer,
            num_warmup_steps=warmup if warmup is not None else round(steps * ratio),
            num_training_steps=steps,
        )
    except ValueError as error:  # polynomial ends at 1e-7
        raise UserError(f"optimizer.schedule={kind}: {error}", "Use linear or cosine.") from None

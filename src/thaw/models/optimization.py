"""Parameter groups, layer-wise learning rates, schedules."""

from collections.abc import Callable, Sequence
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


def parameter_groups(
    parts: Sequence[Block], rates: dict[str, float], weight_decay: float, probe_lr: float | None = None
) -> list[dict[str, Any]]:
    """One optimizer group for each learning rate, with and without decay.

    Matrices decay and vectors (biases, norms) do not, judged by their dimensions, since names differ by architecture.
    The vectors of IA3 are stored as matrices; they start at 1, and decay would switch their layers off.

    Args:
        parts: the blocks of the network, bottom first.
        rates: of each parameter that trains.
        weight_decay: of matrices.
        probe_lr: the rate of the head in a probe stage, which `make_schedule` reads from the head's groups.
    """
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for part in parts:
        probes = probe_lr is not None and part is parts[-1]
        for name, parameter in part.parameters():
            if name in rates:
                decays = parameter.ndim >= 2 and "ia3_" not in name
                groups.setdefault((rates[name], decays, probes), []).append(parameter)
    return [
        {
            "params": members,
            "lr": rate,
            "weight_decay": weight_decay if decays else 0.0,
            **({"probe_lr": probe_lr} if probes else {}),
        }
        for (rate, decays, probes), members in groups.items()
    ]


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int, probe_steps: int = 0
) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule of transformers over a number of optimizer steps.

    A probe stage has the schedule to itself, warm-up included, as has what follows it: like two runs, one after the
    other (Kumar et al. 2022). Rates depend on the step alone, so that a resumed run goes on with the same ones.

    Args:
        settings: ``schedule`` (one of `thaw.values.SCHEDULES`), ``warmup_steps`` or ``warmup_ratio``.
        steps: optimizer steps of the whole run.
        probe_steps: those of a probe stage, in which the head learns at the ``probe_lr`` of its groups.
    """
    probe, later = (_factor(optimizer, settings, own) for own in (probe_steps, steps - probe_steps))

    def factor(group: dict[str, Any]) -> Callable[[int], float]:
        head = group.get("probe_lr", 0.0) / group["lr"]  # all but the head is frozen in a probe stage
        return lambda step: head * probe(step) if step < probe_steps else later(step - probe_steps)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, [factor(group) for group in optimizer.param_groups])


def _factor(optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int) -> Callable[[int], float]:
    """What a schedule of transformers multiplies the learning rate by, at each of so many steps."""
    from transformers import get_scheduler

    kind, ratio, warmup = settings["schedule"], settings.get("warmup_ratio") or 0.0, settings.get("warmup_steps")
    # Of an optimizer of its own, since a schedule changes the rates of its optimizer at once.
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=optimizer.defaults["lr"])
    try:
        rising = warmup if warmup is not None else round(steps * ratio)
        schedule = get_scheduler(kind, alone, num_warmup_steps=rising, num_training_steps=max(steps, 1))
    except ValueError as error:  # polynomial ends at 1e-7
        raise UserError(f"optimizer.schedule={kind}: {error}", "Use linear or cosine.") from None
    return schedule.lr_lambdas[0]

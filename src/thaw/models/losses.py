"""Losses on the logits, the same for every architecture."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.errors import UserError, raised
from thaw.instantiate import build_function
from thaw.labels import IGNORED, LabelSet

Loss = Callable[[Tensor, Tensor], Tensor]
Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def make_loss(loss: dict[str, Any], labels: LabelSet) -> Loss:
    """The loss function of a run: the weighted mean of what `make_terms` gives for logits and targets.

    If there is nothing to learn from (all targets ignored, or of weight 0), the loss is 0. Torch gives NaN, with which
    a single batch of blank sentences would destroy all weights.
    """
    terms = make_terms(loss, labels)

    def mean(logits: Tensor, targets: Tensor) -> Tensor:
        losses, weights = terms(logits, targets)
        total = weights.sum()
        # With smoothing, rows of weight 0 have a loss as well, from the other classes.
        return losses.sum() * (total > 0) / total.clamp(min=1e-12)

    return mean


def make_terms(loss: dict[str, Any], labels: LabelSet) -> Terms:
    """A function that gives the losses of single rows or tokens, and their weights.

    Args:
        loss: the ``loss`` group of the config: ``label_smoothing``, ``focal_gamma`` (0 for none) and
            ``class_weights`` (None, ``balanced``, or a weight for each label by name or in order), and ``function``,
            of the user's (None for cross-entropy).
        labels: task, names and counts.

    Returns:
        A function of logits (..., labels) and targets that gives (n,) weighted losses of rows or tokens, and (n,)
        weights. Targets are ids, with -100 for what is ignored, or 0 and 1 for each label of a multi-label task.

    Raises:
        UserError: for class weights that do not fit the labels, and for settings that a function of one's own ignores.
    """
    smoothing, gamma = loss["label_smoothing"], loss["focal_gamma"]
    weights = class_weights(loss["class_weights"], labels)
    terms = multi_label_terms if labels.task == "multi_label" else single_label_terms
    if loss.get("function"):
        ignored = {"label_smoothing": smoothing, "focal_gamma": gamma}
        if labels.task == "multi_label":
            ignored["class_weights"] = loss["class_weights"]
        if unread := [f"loss.{key}" for key, value in ignored.items() if value]:
            raise UserError(
                f"{unread[0]} has no effect with loss.function", "Leave it out, or give it to the function."
            )
        terms = own_terms(build_function(loss["function"], "loss.function"))
        each = torch.eye(len(labels))  # a row of each label: what cannot work says so now, not after an epoch
        terms(each, each if labels.task == "multi_label" else torch.arange(len(labels)), weights)

    @cache
    def weights_on(device: torch.device) -> Tensor | None:
        return None if weights is None else weights.to(device)

    return lambda logits, targets: terms(logits, targets, weights_on(logits.device), smoothing, gamma)


def class_weights(wanted: Any, labels: LabelSet) -> Tensor | None:
    """The weight of each label, or None."""
    if wanted is None:
        return None
    if wanted == "balanced":
        if labels.task == "multi_label":
            # Weight of the positive class: rows without the label per row with it. A label of all rows has no negatives
            # to be balanced with, and with a weight of 0 it would never be learnt.
            counts = ((count, labels.rows - count) for count in labels.counts)
            return torch.tensor([without / count if count and without else 1.0 for count, without in counts])
        return torch.tensor(labels.balanced_weights())
    if isinstance(wanted, Mapping):
        by_name = {str(name): weight for name, weight in wanted.items()}  # yaml reads the label 0 as a number
        if unknown := sorted(set(by_name) - set(labels.names)):
            raise UserError(
                f"loss.class_weights names the unknown label {unknown[0]!r}", f"Known: {', '.join(labels.names)}."
            )
        wanted = [by_name.get(name, 1.0) for name in labels.names]
    if len(wanted) != len(labels):
        raise UserError(
            f"loss.class_weights={wanted} is not a non-negative number for each of the {len(labels)} labels",
            "Give balanced, a list in the order of the labels, or {name: weight}.",
        )
    return torch.tensor([float(weight) for weight in wanted])


def single_label_terms(
    logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float = 0.0, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with weights and smoothing as in torch; with ``gamma``, the focal loss (Lin et al. 2017)."""
    logits, targets = logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1)
    kept = targets != IGNORED
    ids = targets.where(kept, 0)
    weights = logits.new_ones(logits.shape[-1]) if weights is None else weights
    losses = F.cross_entropy(
        logits, targets, weight=weights, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none"
    )
    if gamma:
        losses = losses * focus(logits.softmax(-1).gather(1, ids[:, None]).squeeze(1), gamma)
    return losses, weights[ids] * kept


def multi_label_terms(
    logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float = 0.0, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of each label; weights apply to the positive class, smoothing moves targets towards 1/2."""
    logits, targets = logits.float(), targets.float()
    goal = targets * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, goal, pos_weight=weights, reduction="none")
    if gamma:
        chance = logits.sigmoid()
        losses = losses * focus(torch.where(targets > 0.5, chance, 1 - chance), gamma)
    losses = losses.mean(-1)
    return losses, torch.ones_like(losses)


def own_terms(function: Loss) -> Callable[..., tuple[Tensor, Tensor]]:
    """Terms of a loss of the user's.

    Args:
        function: from (n, labels) logits and (n,) ids, or of a multi-label task (n, labels) 0 and 1, to (n,) losses.
            Whatever it gives for tokens that are ignored, which have the id 0, does not count.
    """

    def terms(logits: Tensor, targets: Tensor, weights: Tensor | None, *_: float) -> tuple[Tensor, Tensor]:
        several = targets.shape == logits.shape
        logits = logits.reshape(-1, logits.shape[-1]).float()
        kept = torch.ones_like(logits[:, 0], dtype=torch.bool) if several else targets.reshape(-1) != IGNORED
        goal = targets.float() if several else targets.reshape(-1).where(kept, 0)
        try:
            losses = function(logits, goal)
        except Exception as error:  # whatever a function of the user's may raise
            if type(error).__name__ == "OutOfMemoryError":
                raise
            raise UserError(f"loss.function: {raised(error)}", "It takes logits and targets.") from error
        if losses.shape != kept.shape:
            shape = f"of shape {list(losses.shape)} for {len(kept)} rows"
            raise UserError(f"loss.function: gave losses {shape}", "Return one loss per row, not their mean.")
        weights = kept.float() if weights is None else weights[goal] * kept
        return losses.where(kept, 0) * weights, weights

    return terms


def focus(confidence: Tensor, gamma: float) -> Tensor:
    """The factor of the focal loss, clamped away from 0, where a power below 1 has an infinite gradient."""
    return (1 - confidence).clamp(min=1e-7) ** gamma

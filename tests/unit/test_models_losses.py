"""Losses against torch's, scikit-learn's and sums by hand."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from thaw.errors import UserError
from thaw.labels import IGNORED, LabelSet
from thaw.models.losses import class_weights, make_loss

LABELS = LabelSet("sequence", ("joy", "anger", "fear", "love"), (5, 3, 2, 0), rows=10)
SEVERAL = LabelSet("multi_label", ("joy", "anger", "fear"), (5, 2, 0), rows=8)
PLAIN: dict[str, Any] = {"class_weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0}


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


TARGETS = torch.tensor([0, 1, 2, 3, 0, 1, IGNORED])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
def test_cross_entropy_is_that_of_torch(weights: Any, smoothing: float, logits: torch.Tensor) -> None:
    loss = make_loss({**PLAIN, "class_weights": weights, "label_smoothing": smoothing}, LABELS)
    own = torch.tensor(weights) if weights else None
    expected = F.cross_entropy(logits, TARGETS, weight=own, label_smoothing=smoothing, ignore_index=IGNORED)
    torch.testing.assert_close(loss(logits, TARGETS), expected)
    # Token tasks: rows and tokens are one axis.
    torch.testing.assert_close(loss(logits[None], TARGETS[None]), expected)


def test_focal_loss_by_hand() -> None:
    """Lin et al. 2017: -(1 - p)^gamma log p; weights as in the cross-entropy."""
    chances = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    targets = torch.tensor([0, 0, IGNORED])
    terms = [-((1 - p) ** 2) * math.log(p) for p in (0.7, 0.2)]
    loss = make_loss({**PLAIN, "focal_gamma": 2.0}, LABELS)
    assert float(loss(chances.log(), targets)) == pytest.approx(sum(terms) / 2)
    weighted = make_loss({**PLAIN, "focal_gamma": 2, "class_weights": {"joy": 3.0, "anger": 1.0}}, LABELS)
    rows = torch.tensor([0, 1, IGNORED])
    by_hand = (3 * terms[0] - (1 - 0.6) ** 2 * math.log(0.6)) / 4
    assert float(weighted(chances.log(), rows)) == pytest.approx(by_hand)


def test_a_batch_with_nothing_to_learn_does_no_harm(logits: torch.Tensor) -> None:
    """torch's mean of nothing is nan, which one step would spread over all weights."""
    logits.requires_grad_()
    nothing = make_loss(PLAIN, LABELS)(logits, torch.full((7,), IGNORED))
    weightless, smoothed = (
        make_loss({**PLAIN, **more, "class_weights": {"love": 0.0}}, LABELS)(logits, torch.full((7,), 3))
        for more in ({}, {"label_smoothing": 0.1})
    )
    (nothing + weightless + smoothed).backward()
    assert nothing == weightless == smoothed == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("labels", [LABELS, SEVERAL], ids=lambda labels: labels.task)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_has_gradients_where_the_network_is_sure(gamma: float, labels: LabelSet) -> None:
    logits = torch.zeros(1, len(labels))
    logits[0, 0] = 200.0
    targets = torch.tensor([0]) if labels.task == "sequence" else torch.tensor([[1, 0, 0]])
    make_loss({**PLAIN, "focal_gamma": gamma}, labels)(logits.requires_grad_(), targets).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("weights", [None, [2.0, 0.5, 1.0]])
def test_multi_label_loss_is_that_of_torch(weights: Any, logits: torch.Tensor) -> None:
    values, targets = logits[:, :3], torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]])
    own = torch.tensor(weights) if weights else None
    expected = F.binary_cross_entropy_with_logits(values[:6], targets.float(), pos_weight=own)
    loss = make_loss({**PLAIN, "class_weights": weights}, SEVERAL)
    torch.testing.assert_close(loss(values[:6], targets), expected)


def test_multi_label_smoothing_and_focus_by_hand() -> None:
    chance, target = torch.tensor([[0.8, 0.8, 0.8]]), torch.tensor([[1, 0, 1]])
    smoothed = make_loss({**PLAIN, "label_smoothing": 0.2}, SEVERAL)
    hit, miss = -0.9 * math.log(0.8) - 0.1 * math.log(0.2), -0.1 * math.log(0.8) - 0.9 * math.log(0.2)
    assert float(smoothed(chance.logit(), target)) == pytest.approx((2 * hit + miss) / 3, rel=1e-5)
    focal = make_loss({**PLAIN, "focal_gamma": 2.0}, SEVERAL)
    hit, miss = -(0.2**2) * math.log(0.8), -(0.8**2) * math.log(0.2)
    assert float(focal(chance.logit(), target)) == pytest.approx((2 * hit + miss) / 3, rel=1e-5)


@pytest.mark.parametrize("labels", [LABELS, SEVERAL], ids=lambda labels: labels.task)
def test_losses_of_half_precision_are_summed_in_single(labels: LabelSet, logits: torch.Tensor) -> None:
    half = logits[:, : len(labels)].bfloat16()
    targets = TARGETS if labels.task == "sequence" else (logits[:, :3] > 0).long()
    loss = make_loss(PLAIN, labels)
    torch.testing.assert_close(loss(half, targets), loss(half.float(), targets), rtol=0, atol=0)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    rows = np.repeat([0, 1, 2], [5, 3, 2])
    weights = class_weights("balanced", LABELS)
    assert weights is not None
    assert weights[:3].tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=rows))
    assert weights[3] == 0  # a label without training rows
    # Several labels: rows without the label for each with it.
    positive = class_weights("balanced", SEVERAL)
    assert positive is not None
    assert positive.tolist() == pytest.approx([3 / 5, 6 / 2, 1.0])


def test_a_label_of_every_row_is_learnt_with_balanced_weights() -> None:
    everywhere = LabelSet("multi_label", ("joy", "fear"), (10, 4), rows=10)
    loss = make_loss({**PLAIN, "class_weights": "balanced"}, everywhere)
    logits = torch.zeros(1, 2, requires_grad=True)
    loss(logits, torch.tensor([[1, 0]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] < 0, "its logit rises"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ({"fear": 5}, [1, 1, 5, 1]),
        (OmegaConf.create([1, 2, 3, 4]), [1, 2, 3, 4]),
        (OmegaConf.create({"joy": 0.5}), [0.5, 1, 1, 1]),
    ],
)
def test_class_weights_by_order_and_by_name(given: Any, expected: list[float]) -> None:
    """In plain containers, and in those of a config that is read back."""
    weights = class_weights(given, LABELS)
    assert weights is not None
    assert weights.tolist() == expected


def test_class_weights_of_labels_that_are_numbers() -> None:
    weights = class_weights({0: 2.0, 1: 3.0}, LabelSet("sequence", ("0", "1"), (1, 1), rows=2))
    assert weights is not None
    assert weights.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "for each of the 4 labels"),
        ({"class_weights": {"hate": 2.0}}, "unknown label 'hate'"),
    ],
)
def test_wrong_settings_are_user_errors(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_loss({**PLAIN, **setting}, LABELS)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder ``own/`` with losses of a user's."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/losses.py").write_text(
        "from torch.nn import functional as F\n"
        "def poly(logits, targets, epsilon=1.0):\n"
        "    loss = F.cross_entropy(logits, targets, reduction='none')\n"
        "    return loss + epsilon * (1 - (-loss).exp())\n"
        "def mean(logits, targets):\n"
        "    return F.cross_entropy(logits, targets)\n"
        "def broken(logits, targets): return {}['weight']\n"
        "class Squared:\n"
        "    def __init__(self, scale): self.scale = scale\n"
        "    def __call__(self, logits, targets): return self.scale * ((logits.sigmoid() - targets) ** 2).sum(-1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.delitem(sys.modules, "own.losses", raising=False)


def test_a_loss_of_ones_own_stands_for_cross_entropy(own: None, logits: torch.Tensor) -> None:
    function = {"_target_": "own.losses.poly", "epsilon": 2.0}
    rows, weights = logits[:6], torch.tensor([1.0, 2.0, 0.5, 3.0])
    each = F.cross_entropy(rows, TARGETS[:6], reduction="none")
    each = each + 2 * (1 - (-each).exp())
    plain = make_loss({**PLAIN, "function": function}, LABELS)(logits[None], TARGETS[None])
    torch.testing.assert_close(plain, each.mean())
    weighted = make_loss({**PLAIN, "function": function, "class_weights": weights.tolist()}, LABELS)(logits, TARGETS)
    own_weights = weights[TARGETS[:6]]
    torch.testing.assert_close(weighted, (each * own_weights).sum() / own_weights.sum())


def test_a_class_is_built_once_and_called_with_all_labels_of_a_row(own: None) -> None:
    logits, targets = torch.zeros(2, 3), torch.tensor([[1, 0, 0], [1, 1, 1]])
    loss = make_loss({**PLAIN, "function": {"_target_": "own.losses.Squared", "scale": 2}}, SEVERAL)
    assert loss(logits, targets).item() == pytest.approx(2 * 3 * 0.25)


@pytest.mark.parametrize(
    ("function", "others", "labels", "message"),
    [
        ({"_target_": "own.losses.mean"}, {}, LABELS, r"losses of shape \[\] for 4 rows. Return one loss per row"),
        ({"_target_": "own.losses.poly", "gamma": 1}, {}, LABELS, "what it does not take: '~loss.function.gamma'"),
        ({"_target_": "own.losses.poli"}, {}, LABELS, "there is no such class"),
        ({"_target_": "own.losses.broken"}, {}, LABELS, r"loss.function: KeyError: 'weight' \(own/losses\.py:7\)"),
        ({"_target_": "os.system"}, {}, LABELS, "may not be built"),
        ({"_target_": "own.losses.poly"}, {"focal_gamma": 2.0}, LABELS, "loss.focal_gamma has no effect"),
        ({"_target_": "own.losses.Squared", "scale": 1}, {"class_weights": "balanced"}, SEVERAL, "has no effect"),
    ],
)  # fmt: skip
def test_a_loss_of_ones_own_that_cannot_work_is_told(
    own: None, function: Any, others: Any, labels: LabelSet, message: str, logits: torch.Tensor
) -> None:
    with pytest.raises(UserError, match=message):
        make_loss({**PLAIN, **others, "function": function}, labels)(logits, TARGETS)

"""What the optimizer gets, what a step changes, and what a checkpoint holds."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.models.losses import make_loss
from thaw.models.module import EncoderModule
from thaw.models.optimization import make_schedule, parameter_groups
from thaw.reporting.summary import parameter_rows
from thaw.training.trainer import best_checkpoint, check_monitor
from thaw.values import SCHEDULES
from tiny_models import build

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode", "ignore:`isinstance.treespec")
Encoders = Callable[[str], Path]
LABELS = LabelSet("sequence", ("joy", "anger", "fear"), (5, 3, 2), rows=10)
ADAPTER = {"rank": 2, "alpha": 4, "dropout": 0.1, "target_modules": None}
STRATEGIES: list[dict[str, Any]] = [
    {"name": "none"},
    {"name": "head"},
    {"name": "embeddings"},
    {"name": "first_n", "n": 2},
    {"name": "all_but_last_n", "n": 1},
    {"name": "bitfit"},
    {"name": "gradual", "every": 1},
    {"name": "lp_ft", "probe_epochs": 1},
    {"name": "lora", **ADAPTER},
    {"name": "dora", **ADAPTER},
    {"name": "ia3"},
]
every_strategy = pytest.mark.parametrize("freeze", STRATEGIES, ids=lambda freeze: freeze["name"])


def make(folder: Path, freeze: dict[str, Any], **optimizer: Any) -> EncoderModule:
    torch.manual_seed(0)
    groups = {
        "model": {},
        "freeze": freeze,
        "loss": {"class_weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0},
        "metrics": {},
        "optimizer": {
            "class": {"_target_": "torch.optim.AdamW", "fused": True},
            "lr": 1e-2,
            "weight_decay": 0.1,
            "schedule": "constant",
            **optimizer,
        },
        "strict_iob2": False,
    }
    return EncoderModule(folder, LABELS, groups)


def batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 45).reshape(4, 10)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([0, 1, 2, 0]),
        "rows": torch.arange(4),
    }


def fit(module: EncoderModule, epochs: int, *callbacks: pl.Callback, batches: Any = None, **options: Any) -> pl.Trainer:
    """Two batches an epoch, with a validation after each epoch."""
    loader: Any = torch.utils.data.DataLoader(batches or [batch(), batch()], batch_size=None)
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **options,
    }
    trainer = pl.Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(module, loader, loader)
    return trainer


class Watch(pl.Callback):
    """Notes for each epoch which parameters changed, and which blocks were in training mode."""

    def __init__(self) -> None:
        self.changed: list[set[str]] = []
        self.training: list[set[str]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.before = {name: value.detach().clone() for name, value in pl_module.network.named_parameters()}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        awake = {part.name for part in pl_module.parts for _, m in part.modules if any(c.training for c in m.modules())}
        self.training = [*self.training[: trainer.current_epoch], awake]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        now = pl_module.network.named_parameters()
        self.changed.append({name for name, value in now if not torch.equal(value, self.before[name])})


def names(module: EncoderModule, *wanted: str) -> set[str]:
    return {name for part in module.parts for name, _ in part.parameters() if part.name in wanted}


ALL = ("embeddings", "layer 1", "layer 2", "layer 3", "head")


@every_strategy
def test_every_parameter_that_ever_trains_is_in_one_optimizer_group(freeze: dict[str, Any], encoders: Encoders) -> None:
    module = make(encoders("bert"), freeze, head_lr=0.5, layer_decay=0.5)
    named = {id(parameter): name for name, parameter in module.network.named_parameters()}
    groups = parameter_groups(module.parts, module.rates, 0.1)
    counted = Counter(named[id(parameter)] for group in groups for parameter in group["params"])
    assert counted == Counter(module.ever_trained)
    training = {name for name, parameter in module.network.named_parameters() if parameter.requires_grad}
    assert training <= module.ever_trained
    assert names(module, "head") & training

    expected = {"head": 0.5, "layer 3": 1e-2, "layer 2": 5e-3, "layer 1": 2.5e-3, "embeddings": 1.25e-3}
    rate_of = {name: expected[part.name] for part in module.parts for name, _ in part.parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = named[id(parameter)]
            assert group["lr"] == rate_of[name]
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 and "ia3_" not in name else 0.0)


def test_without_further_settings_all_learn_at_one_rate(encoders: Encoders) -> None:
    groups = parameter_groups((module := make(encoders("bert"), {"name": "none"})).parts, module.rates, 0.1)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-2, 0.1), (1e-2, 0.0)]


@every_strategy
def test_only_what_trains_changes_and_the_rest_stays_in_eval_mode(freeze: dict[str, Any], encoders: Encoders) -> None:
    """Over two epochs of real training with weight decay, dropout and validations between them."""
    module, watch = make(encoders("bert"), freeze), Watch()
    fit(module, 2, watch)
    adapters = {name for name in module.ever_trained if "lora_" in name or "ia3_" in name}
    head = {name for name in names(module, "head") if ".original_module." not in name}
    stages: list[tuple[set[str], set[str]]] = {
        "none": [(names(module, *ALL), set(ALL))] * 2,
        "head": [(head, {"head"})] * 2,
        "embeddings": [(names(module, *ALL[1:]), set(ALL[1:]))] * 2,
        "first_n": [(names(module, "layer 3", "head"), {"layer 3", "head"})] * 2,
        "all_but_last_n": [(names(module, "layer 3", "head"), {"layer 3", "head"})] * 2,
        "bitfit": [({n for n in names(module, *ALL[:-1]) if n.endswith("bias")} | head, set(ALL))] * 2,
        "gradual": [(head, {"head"}), (names(module, "layer 3", "head"), {"layer 3", "head"})],
        "lp_ft": [(head, {"head"}), (names(module, *ALL), set(ALL))],
    }.get(freeze["name"], [(adapters | head, set(ALL[1:]))] * 2)
    # Attention does not depend on the bias of its keys, whose gradient is no more than rounding.
    keys = {f"bert.encoder.layer.{i}.attention.self.key.bias" for i in range(3)}
    for (trains, awake), changed, training in zip(stages, watch.changed, watch.training, strict=True):
        assert changed - keys == trains - keys
        assert training == awake


@every_strategy
def test_each_parameter_is_counted_once(freeze: dict[str, Any], encoders: Encoders) -> None:
    """Adapters put a copy of the head aside, which is no part of what the run trains or saves."""
    module, plain = make(encoders("bert"), freeze), make(encoders("bert"), {"name": "none"})
    added = sum(p.numel() for name, p in module.network.named_parameters() if "lora_" in name or "ia3_" in name)
    whole = sum(p.numel() for p in plain.network.parameters()) + added
    assert sum(row["parameters"] for row in module.table) == whole
    assert module.table[-1]["trainable"] == module.table[-1]["parameters"]


@every_strategy
@pytest.mark.parametrize("architecture", ["distilbert", "deberta_v3"])
def test_a_step_keeps_to_the_device_of_its_network(
    architecture: str, freeze: dict[str, Any], encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without values stand for those of a GPU: they mix with those of the CPU no better."""
    enabled = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind="cpu": kind != "meta" and enabled(kind))
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: False)  # transformers asks whether a mask hides anything
    module = make(encoders(architecture), freeze).to("meta")
    settings = {"class_weights": "balanced", "label_smoothing": 0.1, "focal_gamma": 2.0}
    module.training_loss = make_loss(settings, LABELS)
    _, weighted = module.losses({name: tensor.to("meta") for name, tensor in batch().items()})
    weighted.backward()
    trained = {name for name, parameter in module.network.named_parameters() if parameter.grad is not None}
    assert trained == module.now_trained


def test_a_batch_weighs_as_it_says(encoders: Encoders) -> None:
    module = make(encoders("bert"), {"name": "none"}).eval()
    batch = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    batch |= {"labels": torch.tensor([1]), "rows": torch.tensor([0])}
    plain, _ = module.losses(batch)
    shown, weighted = module.losses({**batch, "weight": torch.tensor(0.25)})
    assert weighted.item() == pytest.approx(0.25 * plain.item())
    assert shown == plain, "the curve shows the mean of the batch"


@pytest.mark.parametrize("weights", [{}, {"weight": torch.tensor(0.5)}], ids=["plain", "weighted"])
def test_the_last_step_of_an_epoch_is_as_large_as_others_with_fewer_batches(
    weights: dict[str, torch.Tensor], encoders: Encoders
) -> None:
    class Norms(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            gradients = [parameter.grad.flatten() for parameter in pl_module.parameters() if parameter.grad is not None]
            norms.append(torch.cat(gradients).norm().item())

    norms: list[float] = []
    for accumulate in (2, 3, 5):  # of two batches
        module = make(encoders("bert"), {"name": "head"}, lr=1e-30)
        fit(module, 1, Norms(), batches=[{**batch(), **weights}] * 2, accumulate_grad_batches=accumulate)
        assert module.train_loss > 0.8, "the curve shows the mean of the batch, not what is weighted"
    assert norms == pytest.approx([norms[0]] * 3)


def test_of_equal_scores_the_checkpoint_with_the_lowest_loss_is_kept(encoders: Encoders, tmp_path: Path) -> None:
    class Losses(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            seen.append([float(trainer.callback_metrics[name]) for name in ("val/loss", "val/f1")])

    seen: list[list[float]] = []
    best = best_checkpoint(tmp_path, "val/f1", "max")
    module = make(encoders("bert"), {"name": "head"}, lr=1e-3)
    fit(module, 4, Losses(), best, enable_checkpointing=True)
    losses, scores = zip(*seen, strict=True)
    assert len(set(scores)) == 1
    step = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)["global_step"]
    assert losses.index(min(losses)) > 0
    assert step == 2 * (losses.index(min(losses)) + 1)
    assert best.state_key.startswith("ModelCheckpoint{")


def test_a_checkpoint_holds_only_what_trains_and_restores_it(encoders: Encoders, tmp_path: Path) -> None:
    freeze = {"name": "all_but_last_n", "n": 1}
    module = make(encoders("bert"), freeze)
    fit(module, 1).save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == {f"network.{name}" for name in names(module, "layer 3", "head")}

    again = make(encoders("bert"), freeze)
    assert not torch.equal(again.network.classifier.weight, module.network.classifier.weight)
    again.setup("fit")
    again.on_load_checkpoint(saved)
    assert not again.load_state_dict(saved["state_dict"], strict=again.strict_loading).unexpected_keys
    torch.testing.assert_close(again.state_dict(), module.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_refuses_another_encoder(encoders: Encoders, tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = {"state_dict": (module := make(encoders("bert"), {"name": "head"})).state_dict()}
    other = make(build("bert", tmp_path / "other", seed=1), {"name": "head"})
    module.setup("fit")
    other.setup("fit")
    module.on_save_checkpoint(checkpoint)
    with pytest.raises(UserError, match="frozen weights of the encoder are not those"):
        other.on_load_checkpoint(checkpoint)


def schedule(steps: int = 20, lr: float = 1.0, **settings: Any) -> list[float]:
    """The learning rate of each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    following, rates = make_schedule(optimizer, {"schedule": "linear", **settings}, steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        following.step()
    return rates


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_warm_up_and_never_rise_again(kind: str) -> None:
    rates = schedule(schedule=kind, warmup_ratio=0.2)
    peak = 0 if kind == "constant" else 4
    assert rates[peak] == pytest.approx(1.0)
    assert rates[: peak + 1] == pytest.approx([i / 4 for i in range(5)] if peak else [1.0])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_a_linear_schedule_ends_at_zero_and_steps_win_over_the_ratio() -> None:
    assert schedule(warmup_ratio=0.5, warmup_steps=0) == pytest.approx([1 - i / 20 for i in range(20)])


def test_the_steps_of_a_warm_up_are_rounded() -> None:
    assert schedule(warmup_ratio=0.29)[5:8] == pytest.approx([5 / 6, 1.0, 13 / 14])


def test_a_rate_below_that_at_which_its_schedule_ends_is_told() -> None:
    with pytest.raises(UserError, match=r"optimizer\.schedule=polynomial: .*Use linear or cosine\."):
        schedule(lr=1e-8, schedule="polynomial")


class Rates(pl.Callback):
    """Notes the learning rates of each optimizer step."""

    def __init__(self) -> None:
        self.lowest: list[float] = []
        self.head: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.lowest.append(optimizer.param_groups[0]["lr"])
        self.head.append(optimizer.param_groups[-1]["lr"])


@pytest.mark.parametrize(
    ("options", "probe", "later"),
    [
        ({}, 4, 2),
        ({"accumulate_grad_batches": 2}, 2, 1),
        ({"max_steps": 5}, 4, 1),
        ({"max_steps": 3}, 3, 0),  # the run ends within its probe stage
    ],
)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_probe_has_a_rate_of_its_own_and_each_stage_the_schedule(
    kind: str, options: dict[str, Any], probe: int, later: int, encoders: Encoders
) -> None:
    settings = {"schedule": kind, "warmup_ratio": 0.25}
    rates, freeze = Rates(), {"name": "lp_ft", "probe_epochs": 2, "probe_lr": 0.1}
    fit(make(encoders("bert"), freeze, head_lr=0.02, layer_decay=0.5, **settings), 3, rates, **options)
    of_probe, of_later = (schedule(steps, lr=1e-2, **settings) for steps in (probe, later))
    assert rates.lowest == pytest.approx([0.0 for _ in of_probe] + [rate / 2**3 for rate in of_later])
    assert rates.head == pytest.approx([10 * rate for rate in of_probe] + [2 * rate for rate in of_later])


def test_without_a_rate_of_its_own_a_probe_shares_the_schedule(encoders: Encoders) -> None:
    rates, freeze = Rates(), {"name": "lp_ft", "probe_epochs": 1, "probe_lr": None}
    fit(make(encoders("bert"), freeze, schedule="linear"), 2, rates)
    assert rates.lowest == rates.head == pytest.approx(schedule(4, lr=1e-2))


def test_a_probe_stage_is_a_run_of_a_head_alone(encoders: Encoders) -> None:
    class Keep(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            states.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})

    states: list[dict[str, torch.Tensor]] = []
    fit(make(encoders("bert"), {"name": "head"}, lr=0.1, schedule="linear"), 2, Keep())
    fit(make(encoders("bert"), {"name": "lp_ft", "probe_epochs": 2, "probe_lr": 0.1}, schedule="linear"), 3, Keep())
    torch.testing.assert_close(states[3], states[1])
    assert not torch.equal(states[4]["classifier.weight"], states[3]["classifier.weight"])


@pytest.mark.parametrize(("epochs", "expected"), [(2, [0.1]), (3, [0.1, 0.02]), (None, [0.1, 0.02])])
def test_the_table_tells_the_rates_of_both_stages(epochs: int | None, expected: Any, encoders: Encoders) -> None:
    freeze = {"name": "lp_ft", "probe_epochs": 2, "probe_lr": 0.1}
    module = make(encoders("bert"), freeze, head_lr=0.02)
    module = EncoderModule(encoders("bert"), LABELS, module.config, epochs)
    head = module.table[-1]["learning_rate"]
    assert head == (expected if len(expected) > 1 else expected[0])
    assert {row["learning_rate"] for row in module.table[:-1]} == {1e-2 if len(expected) > 1 else None}
    _, rows = parameter_rows(module.table)
    assert rows[-2][-1] == ", then ".join(map(str, expected))


TAGS = LabelSet("token", ("O", "B-LOC", "I-LOC", "B-PER"), (9, 1, 1, 1))
SEVERAL = LabelSet("multi_label", ("joy", "fear"), (5, 1))


@pytest.mark.parametrize(
    ("labels", "counts", "monitor", "refused"),
    [
        (LABELS, (3, 2, 0), "val/f1/fear", True),
        (LABELS, (3, 2, 0), "val/recall/fear", True),
        (LABELS, (3, 2, 0), "val/f1/joy", False),
        (LABELS, (3, 2, 0), "val/auc", False),
        (LABELS, (3, 0, 0), "val/auc", True),
        (LABELS, (3, 2, 0), "val/f1_macro", False),
        (LABELS, (3, 2, 1), "val/auc", False),
        (SEVERAL, (3, 0), "val/f1/fear", True),
        (TAGS, (9, 0, 1, 0), "val/f1/LOC", False),
        (TAGS, (9, 0, 1, 0), "val/precision/PER", True),
        (TAGS, (9, 0, 1, 0), "val/f1", False),
    ],
)
def test_a_figure_of_a_label_that_validation_lacks_is_not_monitored(
    labels: LabelSet, counts: tuple[int, ...], monitor: str, refused: bool
) -> None:
    """It would be nan, or 0 throughout: the first checkpoint would stay the best."""
    said = pytest.raises(
        UserError, match=f"monitor={monitor}: no row of validation is (anger or fear|fear|PER), so there is no such"
    )
    with said if refused else nullcontext():
        check_monitor(labels, dict(zip(labels.names, counts, strict=True)), [], "monitor", monitor)


def test_what_is_no_figure_may_be_watched_where_it_is_named() -> None:
    counts = dict.fromkeys(LABELS.names, 0)
    check_monitor(LABELS, counts, [], "callbacks.best.monitor", "train/loss", "train/loss", "step")

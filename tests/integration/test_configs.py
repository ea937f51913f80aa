"""Every option of every config group works with every other: all pairs of options, in as few configs as that takes."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from lightning_fabric.plugins.precision.precision import (
    _PRECISION_INPUT_INT,
    _PRECISION_INPUT_STR,
    _PRECISION_INPUT_STR_ALIAS,
)
from omegaconf import OmegaConf
from transformers import AttentionInterface

from conftest import ROOT, configured
from thaw.errors import UserError
from thaw.instantiate import build
from thaw.labels import LabelSet
from thaw.models.freezing import STRATEGIES
from thaw.models.module import EncoderModule
from thaw.models.optimization import parameter_groups
from thaw.rules import RULES
from thaw.runs import make_absolute
from thaw.settings import check, plain
from thaw.training.tracking import make_loggers
from thaw.training.trainer import make_trainer, precision_here
from thaw.values import ATTENTIONS, PRECISIONS

GROUPS = ("model", "data", "freeze", "optimizer", "loss", "trainer", "metrics", "callbacks", "logger")
LABELS = {
    "sequence": LabelSet("sequence", ("a", "b", "c"), (5, 3, 2), "", 10),
    "token": LabelSet("token", ("O", "B-PER", "I-PER"), (50, 3, 2), "", 10),
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml"))


def covering() -> list[dict[str, str]]:
    """Choices of one option for each group, in which every pair of options of two groups occurs at least once.

    Data, the longest list, takes turns: no value of it reads another group.
    """
    paired, turns = [group for group in GROUPS if group != "data"], itertools.cycle(options("data"))
    missing = {
        frozenset({(one, a), (other, b)})
        for one, other in itertools.combinations(paired, 2)
        for a in options(one)
        for b in options(other)
    }
    configs = []
    while missing:
        chosen = dict(sorted(min(missing, key=sorted)))
        for group in paired:
            if group not in chosen:
                chosen[group] = max(
                    options(group),
                    key=lambda option, group=group: sum(
                        frozenset({(group, option), pair}) in missing for pair in chosen.items()
                    ),
                )
        missing -= {frozenset(pair) for pair in itertools.combinations(chosen.items(), 2)}
        configs.append({**chosen, "data": next(turns)})
    return configs


def test_every_pair_of_options_composes_and_instantiates(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    local = {"minilm": "bert"}
    configs, built = covering(), set()
    assert len(configs) < 200
    assert {config["data"] for config in configs} == {*options("data")}
    for chosen in configs:
        needed = ["data.path=x", "data.hub=owner/name", *["freeze.pattern=layer"] * (chosen["freeze"] == "pattern")]
        config = configured(*(f"{group}={option}" for group, option in chosen.items()), *needed)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(plain, dict)
        check(plain)
        architecture = local.get(chosen["model"], chosen["model"].replace("multilingual", "cased"))
        labels = LABELS["token" if "conll" in chosen["data"] else "sequence"]
        groups = {name: plain[name] for name in ("model", "freeze", "loss", "metrics", "optimizer")}
        for name, callback in plain["callbacks"].items():
            build(callback, name)
        if chosen["logger"] == "tensorboard":
            make_loggers(plain, tmp_path)
        if (parts := (labels.task, *(chosen[name] for name in groups))) in built:
            continue
        built.add(parts)
        if (architecture, chosen["freeze"]) in (("modernbert", "bitfit"), ("albert", "first_n")):
            # ModernBERT has no biases, and all layers of ALBERT are one.
            with pytest.raises(UserError, match=r"has none|has 1 layer"):
                EncoderModule(encoders(architecture), labels, {**groups, "strict_iob2": False})
            continue
        module = EncoderModule(encoders(architecture), labels, {**groups, "strict_iob2": False})
        settings = plain["optimizer"]
        optimizer = build(
            settings["class"],
            "optimizer.class",
            params=parameter_groups(module.parts, module.rates, settings["weight_decay"]),
            lr=settings["lr"],
        )
        assert isinstance(optimizer, torch.optim.Optimizer)


@pytest.mark.parametrize("name", options("trainer"))
def test_trainers_work_or_say_why_not(name: str, tmp_path: Path) -> None:
    settings = OmegaConf.to_container(configured(f"trainer={name}").trainer, resolve=True)
    assert isinstance(settings, dict)
    settings["precision"] = precision_here(settings["precision"], settings["accelerator"])
    if name == "default" or name.endswith("_cpu") or torch.cuda.is_available():
        assert make_trainer(settings, [], tmp_path).world_size == (2 if name.endswith("_cpu") else 1)
    else:
        with pytest.raises(UserError, match="trainer: "):
            make_trainer(settings, [], tmp_path)


def test_more_than_one_device_is_taken_only_where_it_is_asked_for() -> None:
    """Else the same command would take larger batches on a larger machine, and no multirun would run there."""
    several = {name for name in options("trainer") if configured(f"trainer={name}").trainer.devices != 1}
    assert several == {"ddp", "fsdp", "ddp_cpu", "fsdp_cpu"}


@pytest.mark.parametrize(
    ("gpu", "bf16", "accelerator", "expected"),
    [
        (True, True, "gpu", "bf16-mixed"),
        (True, False, "auto", "16-mixed"),
        (True, True, "cpu", "32-true"),
        (False, False, "auto", "32-true"),
    ],
)
def test_the_precision_is_one_that_the_device_is_fast_in(
    gpu: bool, bf16: bool, accelerator: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    assert precision_here("auto", accelerator) == expected
    assert precision_here("16-true", accelerator) == "16-true"


def test_local_paths_hold_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.csv").touch()
    monkeypatch.chdir(tmp_path)
    config = configured("data=csv", "data.path=mine.csv", "model=bert")
    make_absolute(config)
    assert config.data.path == str(tmp_path / "mine.csv")
    assert config.model.name == "google-bert/bert-base-uncased"


def test_of_losses_and_calibration_errors_the_lowest_is_the_best() -> None:
    modes = {"val/loss": "min", "val/ece": "min", "val/f1": "max", "val/auc": "max", "val/f1/loss": "max"}
    for monitor, mode in modes.items():
        config = configured(f"monitor={monitor}", "callbacks=early_stopping")
        assert config.mode == config.callbacks.early_stopping.mode == mode
        config = configured("callbacks=early_stopping", f"callbacks.early_stopping.monitor={monitor}")
        assert (config.mode, config.callbacks.early_stopping.mode) == ("max", mode)


def test_every_strategy_has_a_config_and_the_other_way_round() -> None:
    assert {configured(f"freeze={option}").freeze.name for option in options("freeze")} == set(STRATEGIES)


def test_optional_groups_can_be_switched_off() -> None:
    assert "none" in options("callbacks")
    assert "none" in options("logger")
    assert "none" in options("freeze")
    assert "none" in options("sweep")


def test_every_setting_is_read_by_something() -> None:
    """An option that nothing reads is a promise that nothing keeps."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    sources += "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml") if "${" in path.read_text()
    )
    for group in ("model", "data", "freeze", "optimizer", "loss", "trainer"):
        for option in options(group):
            for key in configured(f"{group}={option}", "data.path=x")[group]:
                assert f'"{key}"' in sources or f"data.{key}" in sources or f"model.{key}" in sources, f"{group}.{key}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "abc"),
        ("data.batch_size", 0),
        ("data.epochs", 0),
        ("data.num_workers", -1),
        ("data.clean_html", "maybe"),
        ("data.sampler", "random"),
        ("data.padding", "none"),
        ("data.quoting", "some"),
        ("data.on_bad_row", "drop"),
        ("data.subword_labels", "last"),
        ("model.hub", "elsewhere"),
        ("model.dropout", 1.0),
        ("optimizer.lr", "fast"),
        ("optimizer.lr", 0.0),
        ("optimizer.head_lr", -1.0),
        ("optimizer.layer_decay", True),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.schedule", "exponential"),
        ("data.validation_size", 2.0),
        ("data.validation_size", 0),
        ("data.task", "regression"),
        ("data.format", "xml"),
        ("data.train_size", 1.5),
        ("data.eval_size", 0),
        ("data.group_column", 0.5),
        ("model.attention", "flash"),
        ("loss.class_weights", "equal"),
        ("trainer.accelerator", "cup"),
        ("trainer.devices", 0),
        ("trainer.strategy", "dpp"),
        ("data.test_size", 1.0),
        ("data.test_size", -1),
        ("data.test_size", False),
        ("optimizer.warmup_ratio", 1.5),
        ("optimizer.warmup_steps", 0.5),
        ("loss.label_smoothing", 1.0),
        ("loss.focal_gamma", -1),
        ("trainer.log_every", 0),
        ("trainer.accumulate_grad_batches", 0),
        ("trainer.eval_every", -5),
        ("mode", "up"),
        ("trainer.precision", "fp16"),
    ],
)
def test_values_that_no_setting_takes_are_refused(key: str, value: object) -> None:
    plain = OmegaConf.to_container(configured(f"{key}={value}"), resolve=True)
    assert isinstance(plain, dict)
    with pytest.raises(UserError, match=f"^{key}={value} is not "):
        check(plain)


@pytest.mark.parametrize(
    "override",
    [
        "data.task=token", "data.format=json", "data.train_size=1.0", "data.eval_size=0.5", "data.group_column=2",
        "model.attention=kernels-community/flash-attn", "loss.class_weights=[1,0.5]", "loss.class_weights={joy:2}",
        "trainer.devices=-1", "trainer.devices=[0,1]", "trainer.strategy=ddp_find_unused_parameters_true",
    ],
)  # fmt: skip
def test_values_that_a_setting_takes_pass(override: str) -> None:
    check(plain(configured(override)))


@pytest.mark.parametrize("override", ["loss.class_weights=[1,-1]", "trainer.devices=[]", "trainer.devices=[cpu]"])
def test_lists_with_something_wrong_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=f"^{override.partition('=')[0]}=.* is not "):
        check(plain(configured(override)))


def test_the_attentions_are_those_of_transformers() -> None:
    known = {name for name in AttentionInterface._global_mapping if "|" not in name}
    assert {*ATTENTIONS} == {"eager", *known} - {"thaw", "thaw_onnx"}


def test_the_precisions_are_those_of_lightning() -> None:
    texts, numbers = (get_args(own) for own in (_PRECISION_INPUT_STR, _PRECISION_INPUT_INT))
    known = {*texts, *get_args(_PRECISION_INPUT_STR_ALIAS), *map(str, numbers)}
    assert set(PRECISIONS) == {
        name for name in known if not name.startswith("transformer-engine")
    }  # has its own package


def test_every_rule_is_of_a_setting_that_exists() -> None:
    keys = set()
    for option in options("freeze"):
        plain = OmegaConf.to_container(configured(f"freeze={option}", "callbacks=early_stopping"), resolve=True)
        assert isinstance(plain, dict)
        keys |= {*plain} | {f"{group}.{key}" for group in GROUPS for key in plain[group]}
        keys |= {f"callbacks.{name}.{key}" for name, own in plain["callbacks"].items() for key in own}
    assert set(RULES) <= keys

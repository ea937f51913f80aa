"""The settings of a benchmark, checked before it starts anything.

Nothing here imports torch: a child process inherits the peak memory of its parent, and would report that.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from thaw.cli import fail, register_resolvers
from thaw.errors import UserError
from thaw.overrides import quoted
from thaw.script import Script
from thaw.settings import check, check_source

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = ("thaw", "trainer_padded", "trainer_dynamic", "trainer_grouped", "trainer_tutorial", "trainer_resting")
FREEZES = ("none", "head", "first_n", "all_but_last_n", "embeddings", "bitfit", "pattern", "gradual", "lp_ft")


def script(main: Callable[[list[str]], None]) -> None:
    """Run a benchmark as thaw's scripts run: one line and exit code 2 for what the user can fix."""
    if {"-h", "--help"} & {*sys.argv}:
        print(sys.modules[main.__module__].__doc__)
        return
    try:
        main(sys.argv[1:])
    except (Exception, KeyboardInterrupt) as error:
        fail(error, Script(ROOT / "conf", "train"))


def own_settings(arguments: list[str], defaults: dict[str, str]) -> dict[str, str]:
    """Take the benchmark's own settings out of the overrides of ``train.py``."""
    own = dict(defaults)
    for argument in list(arguments):
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
            arguments.remove(argument)
    return own


def configured(overrides: Sequence[str]) -> DictConfig:
    """The config of ``train.py`` with overrides, outside Hydra's command line."""
    register_resolvers(ROOT / "conf")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=[*map(quoted, overrides), "trainer.progress_bar=false"])
    if config.trainer.max_epochs == "auto":  # which the Trainer does not know
        config.data.epochs = config.trainer.max_epochs = 3
    return config


def checked(systems: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """The config, once it is known that each of the systems does what it says.

    Raises:
        UserError: for a system that is not known, and for a setting that ``train.py`` refuses, or that thaw would obey
            and the Hugging Face Trainer would not.
    """
    for system in systems:
        if system not in SYSTEMS:
            raise UserError(f"{system} is not known", f"Choose one of: {', '.join(SYSTEMS)}.")
    config = configured(overrides)
    check_source(config.data)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    check(plain)
    if set(systems) == {"thaw"}:
        return config
    for key, values in shared(config).items():
        if (value := OmegaConf.select(config, key)) not in values:
            remedy = f"Use {key}=null." if values == (None,) else "Leave it out."
            raise UserError(f"{key}={value}: thaw would obey, the Hugging Face Trainer not", remedy)
    return config


def shared(config: DictConfig) -> dict[str, tuple[Any, ...]]:
    """The values of settings that the peer does not get, with which both sides do the same."""
    stop = {
        "_target_": "pytorch_lightning.callbacks.EarlyStopping",
        "monitor": config.monitor,
        "mode": config.mode,
        "check_on_train_epoch_end": False,
        "patience": OmegaConf.select(config, "callbacks.early_stopping.patience"),
    }
    adamw = {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.999], "eps": 1e-8, "fused": True}
    return {
        "resume": (None,),
        "freeze.name": FREEZES,  # no adapters
        "freeze.probe_lr": (None,),  # the Trainer has one schedule for the whole run
        "optimizer.class": (adamw,),
        "optimizer.head_lr": (None,),
        "optimizer.layer_decay": (None, 1),
        "loss.class_weights": (None,),
        "loss.focal_gamma": (0,),
        "loss.function": (None,),
        "metrics": ({},),
        "data.task": (None, "sequence", "token"),  # not several labels for a text
        "data.label_separator": (None,),
        "data.sampler": ("shuffle",),
        "data.tokens_per_batch": (None,),
        # The peer validates by what is labelled, which are more than the words when all sub-tokens are.
        "data.score_subwords": (True,) if config.data.subword_labels == "all" else (True, False),
        "trainer.precision": ("32-true", "bf16-mixed", "16-mixed", "auto"),
        "trainer.devices": (1,),
        "trainer.strategy": ("auto",),
        "callbacks": ({}, {"early_stopping": stop}),
    }


def sides(systems: str, settings: Sequence[str]) -> dict[str, list[str]]:
    """The command that runs each system, with checked settings."""
    checked(systems.split(","), settings)
    return {system: ["benchmarks.side", system, *settings] for system in systems.split(",")}

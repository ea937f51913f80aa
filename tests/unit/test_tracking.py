"""Loggers of a run: what they are told, and that they are known by their class, not by what a config calls them."""

import csv
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wandb
import yaml
from omegaconf import OmegaConf

from conftest import configured
from thaw import files, runs
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.reporting.members import Member
from thaw.reporting.wandb_report import logged
from thaw.training import tracking
from thaw.training.tracking import log_evaluation, log_settings, make_loggers

LABELS = LabelSet("sequence", ("a", "b"), (5, 3), "", 10)
LOGGERS = "pytorch_lightning.loggers"
OWN = f"+logger.mine={{_target_:{LOGGERS}.WandbLogger,project:x}}"


def plain(*overrides: str) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(configured(*overrides), resolve=True)
    return dict(config)


@pytest.mark.parametrize("multirun", [False, True])
def test_a_wandb_logger_of_a_users_own_is_one_of_wandb(
    multirun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its key, and though it leaves out what our file says."""
    given: list[dict[str, Any]] = []
    finished: list[bool] = []
    monkeypatch.setattr(tracking, "build", lambda settings, *_, **__: given.append(settings) or MagicMock())
    monkeypatch.setattr(wandb, "finish", lambda: finished.append(True))
    (tracker,) = make_loggers(plain(OWN), tmp_path / "many/run", multirun)
    tracker.finish()
    assert (given[0]["project"], given[0].get("group"), finished) == ("x", "many" if multirun else None, [True])


def test_a_report_finds_the_wandb_logger_of_a_users_own(tmp_path: Path) -> None:
    runs.save_config(tmp_path, configured("logger=tensorboard", OWN))
    settings = logged([Member(tmp_path, {}, "finished")])
    assert (settings["project"], settings["group"], settings["offline"]) == ("x", None, False)
    runs.save_config(tmp_path, configured("logger=tensorboard"))
    assert logged([Member(tmp_path, {}, "finished")]) == {}


@pytest.mark.parametrize(
    ("choice", "hparams"),
    [
        ("logger=tensorboard", "tensorboard/hparams.yaml"),
        (f"+logger.mine={{_target_:{LOGGERS}.CSVLogger,name:csv,version:one}}", "csv/one/hparams.yaml"),
    ],
)
def test_loggers_are_told_each_setting_by_its_name(choice: str, hparams: str, tmp_path: Path) -> None:
    cfg = plain(choice, "optimizer.lr=0.5", "data.label_names=[a,b]")
    trackers = make_loggers(cfg, tmp_path)
    log_settings(trackers, tmp_path, cfg)
    log_evaluation(trackers, tmp_path, {"test/f1": 0.25, "notes": []}, LABELS)
    told = yaml.safe_load((tmp_path / hparams).read_text())
    assert (told["optimizer.lr"], told["data.label_names"], told["seed"]) == (0.5, ["a", "b"], 42)
    assert not any(isinstance(value, dict) and value for value in told.values())


def test_the_last_figures_are_saved_too(tmp_path: Path) -> None:
    """They come when Lightning has told the loggers that all is over."""
    cfg = plain(f"+logger.mine={{_target_:{LOGGERS}.CSVLogger,name:csv,version:one}}")
    trackers = make_loggers(cfg, tmp_path)
    log_evaluation(trackers, tmp_path, {"test/f1": 0.25}, LABELS)
    with (tmp_path / "csv/one/metrics.csv").open() as file:
        assert next(csv.DictReader(file))["test/f1"] == "0.25"


def test_a_logger_without_its_package_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    settings = f"+logger.mine={{_target_:{LOGGERS}.TensorBoardLogger}}"
    with pytest.raises(UserError, match=r"logger\.mine needs the package tensorboard.*'\.\[tensorboard\]'"):
        make_loggers(plain(settings), tmp_path)


def test_settings_that_a_resumed_run_was_given_anew_replace_those_on_wandb(tmp_path: Path) -> None:
    files.write_json(tmp_path / "environment.json", {"overrides": []})
    logger = MagicMock()
    log_settings([tracking.Tracker(logger, True, tmp_path)], tmp_path, plain())
    assert logger.experiment.config.update.call_args.kwargs == {"allow_val_change": True}

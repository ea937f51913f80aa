"""A run that is stopped and goes on ends as one that was not stopped: the same weights, figures and history."""

import csv
import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from conftest import ROOT, Run, configured, files_of, only_run
from thaw.cli import end
from thaw.errors import Interrupted, UserError
from thaw.metrics.outputs import Outputs
from thaw.models.module import EncoderModule
from thaw.models.prefix import FrozenPrefix, Unusable
from thaw.runs import load_config, occupy
from thaw.training import fit as fitting
from thaw.training import resuming
from thaw.training import trainer as training
from thaw.training.callbacks import History
from thaw.training.fit import fit
from thaw.training.restoring import check_same_size, read_checkpoint
from thaw.training.resuming import SIGNALS, Resumable, parse_interval

pytestmark = pytest.mark.usefixtures("no_pages")

CASES = {
    # 72 rows in batches of 8: nine steps an epoch. Stops at the start, in the middle and at the ends of epochs.
    "each epoch": ([], [1, 8, 9, 19]),
    "every 4 steps": (["trainer.eval_every=4"], [4, 9, 13, 27]),
    "epochs shorter than what is logged": (["trainer.log_every=12"], [4, 9, 13]),
    # Five steps an epoch, of which the last has one batch.
    "accumulation": (["trainer.accumulate_grad_batches=2", "trainer.eval_every=3"], [1, 5, 6]),
    "early stopping": (["callbacks=early_stopping", "callbacks.early_stopping.patience=1"], [8]),
    "lora": (["freeze=lora", "freeze.learning_rate=1e-2"], [10]),
    "gradual": (["freeze=gradual"], [10, 19]),
    "lp_ft": (["freeze=lp_ft"], [5, 19]),
    # Five steps an epoch: stops within the probe, at its end and after it; in bfloat16, as below.
    "lp_ft, with all that sets its rates": (
        [
            "freeze=lp_ft",
            "freeze.probe_epochs=2",
            "freeze.probe_lr=5e-2",
            "freeze.reuse_dtype=bfloat16",
            "trainer.accumulate_grad_batches=2",
            "trainer.max_steps=14",
            "optimizer.head_lr=2e-2",
            "optimizer.layer_decay=0.5",
        ],
        [3, 10, 12],
    ),
    "balanced": (["data.sampler=balanced", "data.num_workers=1"], [10]),
    # In bfloat16, so that it shows whether frozen layers are read or computed. Of the last epoch one pass is left.
    "reuse": (["freeze=first_n", "freeze.n=1", "freeze.reuse_dtype=bfloat16"], [10, 20]),
}


class Killed(Exception):
    """Stands for a kill: nothing is saved when it comes."""


def kill_at(step: int, patch: pytest.MonkeyPatch, hook: str = "on_train_batch_end") -> None:
    save = getattr(Resumable, hook)

    def kill(self: Resumable, trainer: Any, *rest: Any) -> None:
        save(self, trainer, *rest)
        if trainer.global_step == step:
            raise Killed

    patch.setattr(Resumable, hook, kill)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    case: str,
    encoders: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def last_line() -> str:
        lines = [record.getMessage() for record in caplog.records if record.name == "thaw.training.callbacks"]
        return lines[-1].rpartition("  ")[0]  # all but the rows a second

    caplog.set_level("INFO")
    extra, stops = CASES[case]
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "trainer.log_every=1", *extra,
    ]  # fmt: skip
    fit(configured(*settings), tmp_path / "whole")
    whole, line = files_of(tmp_path / "whole"), last_line()
    for stop in stops:
        run = tmp_path / f"stopped-{stop}"
        with monkeypatch.context() as patch:
            kill_at(stop, patch)
            with pytest.raises(Killed):
                fit(configured(*settings, "trainer.checkpoint_every=1"), run)
        assert not (run / "metrics.json").exists()
        fit(configured(f"resume={run}"), run)
        assert (files_of(run), last_line()) == (whole, line)


@pytest.mark.parametrize(
    ("every", "accumulate", "epochs", "expected"),
    [(4, 1, 1, [4, 8, 9]), (100, 1, 1, [9]), (1, 4, 2, [1, 2, 3, 4, 5, 6]), (2, 4, 3, [2, 4, 6, 8, 9])],
)
def test_validations_are_so_many_steps_apart_and_at_the_end(
    every: int, accumulate: int, epochs: int, expected: list[int], encoders: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of nine batches an epoch, the last of which may be a step alone."""
    settings = ["data.train_size=72", "data.eval_size=24", f"data.epochs={epochs}", "data.batch_size=8"]
    settings += [f"trainer.eval_every={every}", f"trainer.accumulate_grad_batches={accumulate}"]
    fit(configured(f"model.name={encoders('distilbert')}", *settings), tmp_path)
    with (tmp_path / "history.csv").open() as file:
        validated = [int(row["step"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert validated == expected


def test_the_history_has_the_mean_loss_since_the_row_before(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    """Whatever the batches of a step are: logged at every step, or at every third, or with gradients accumulated."""
    settings = ["data.train_size=72", "data.eval_size=24", "data.epochs=1", "freeze=head", "optimizer.lr=1e-30"]
    losses = {}
    for name, extra in {
        "each": [1, 1],
        "third": [3, 1],
        "accumulated": [1, 3],
        "fifth": [5, 1],
        "none": [50, 1],
    }.items():
        own = [f"trainer.log_every={extra[0]}", f"trainer.accumulate_grad_batches={extra[1]}", "data.batch_size=8"]
        fit(configured(f"model.name={encoders('distilbert')}", *settings, *own), tmp_path / name)
        with (tmp_path / name / "history.csv").open() as file:
            losses[name] = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    means = np.reshape(losses["each"], (3, 3)).mean(-1)
    assert losses["third"] == pytest.approx(means)
    assert losses["accumulated"] == pytest.approx(means)
    assert losses["fifth"] == pytest.approx([np.mean(losses["each"][:5]), np.mean(losses["each"][5:])])
    assert losses["none"] == pytest.approx([np.mean(losses["each"])]), "that of the validation"


def test_the_history_has_the_rate_that_each_step_used(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    settings = [f"model.name={encoders('distilbert')}", "data.train_size=32", "data.eval_size=24", "data.epochs=1"]
    also = ["data.batch_size=8", "trainer.log_every=1", "optimizer.lr=1e-2", "optimizer.warmup_ratio=0"]
    fit(configured(*settings, *also), tmp_path)
    with (tmp_path / "history.csv").open() as file:
        rates = {int(row["step"]): float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]}
    assert rates == pytest.approx({1: 1e-2, 2: 7.5e-3, 3: 5e-3, 4: 2.5e-3})


def test_a_run_that_stops_in_an_early_stage_says_what_has_trained(
    encoders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = [f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.batch_size=8"]
    fit(configured(*settings, "freeze=lp_ft", "freeze.probe_lr=3e-3", "trainer.max_steps=3"), tmp_path)
    assert "freeze=lp_ft: training ended before its later stages began." in caplog.text
    table, metrics = (json.loads((tmp_path / name).read_text()) for name in ("parameters.json", "metrics.json"))
    assert [row["trainable"] for row in table[:-1]] == [0] * (len(table) - 1)
    assert table[-1]["learning_rate"] == 3e-3
    assert metrics["trainable"] == table[-1]["parameters"]


def test_a_run_of_which_only_the_evaluation_is_left_knows_what_has_trained(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def kill(*_: Any) -> None:
        raise Killed

    settings = [f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.batch_size=8"]
    settings += ["freeze=lp_ft", "freeze.probe_lr=3e-3", "trainer.max_steps=12", "trainer.checkpoint_every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "finish", kill)
        with pytest.raises(Killed):
            fit(configured(*settings), tmp_path)
    fit(configured(f"resume={tmp_path}"), tmp_path)
    assert "before its later stages began" not in caplog.text
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["trainable"] == metrics["parameters"]


def test_a_callback_that_sets_how_many_batches_a_step_takes_does_so_after_a_resume(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.batch_size=8"]
    target = "{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler, scheduling: {0: 3}}"
    settings += ["data.epochs=1", f"+callbacks.schedule={target}"]
    fit(configured(*settings), tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(1, patch)
        with pytest.raises(Killed):
            fit(configured(*settings, "trainer.checkpoint_every=1"), tmp_path / "stopped")
    fit(configured(f"resume={tmp_path}/stopped"), tmp_path / "stopped")
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_the_history_counts_epochs_as_the_lines_do(
    encoders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ["data.train_size=40", "data.eval_size=24", "data.epochs=2", "data.batch_size=10", "freeze=head"]
    with caplog.at_level(logging.INFO):
        fit(configured(f"model.name={encoders('distilbert')}", *settings), tmp_path)
    with (tmp_path / "history.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert all(row["train/loss"] and row["learning_rate"] for row in rows), "of ten steps one is logged"
    assert (
        [row["epoch"] for row in rows]
        == ["1", "2"]
        == re.findall(r"^epoch (\d+) ", "\n".join(caplog.messages), re.MULTILINE)
    )


@pytest.mark.parametrize("name", ["val/acc", "val/loos", "train/loss"])
def test_callbacks_monitor_figures_that_there_are(name: str, encoders: Callable[[str], Path], tmp_path: Path) -> None:
    settings = [f"model.name={encoders('distilbert')}", "callbacks=early_stopping"]
    with pytest.raises(UserError, match=f"callbacks.early_stopping.monitor={name} is not a metric"):
        fit(configured(*settings, f"callbacks.early_stopping.monitor={name}"), tmp_path)


def test_a_figure_that_validation_cannot_have_is_not_monitored(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    settings = [f"model.name={encoders('distilbert')}", "data.train_size=40", "data.eval_size=1", "monitor=val/auc"]
    with pytest.raises(UserError, match=r"monitor=val/auc: no row of validation is .* or .*, so there is no such"):
        fit(configured(*settings), tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data=conll2003_sample", "data.sampler=balanced"], "data.sampler=balanced needs one label per text"),
        (["data.tokens_per_batch=64", "data.padding=max_length"], "data.tokens_per_batch needs rows of like length"),
        (["freeze=lora", "freeze.reuse=on"], "freeze=lora freezes no layers at the bottom"),
        (["trainer=fsdp_cpu", "freeze=head", "freeze.reuse=on"], "freeze.reuse=on: the weights are split among"),
        (["trainer=ddp_cpu", "data.eval_size=1"], "validation has 1 row for 2 processes"),
        (["logger=tensorboard", "+logger.tensorboard.sub_dir=[1]"], "TensorBoardLogger could not be built"),
        (["monitor=val/f1_wieghted"], "is not a metric of a sequence task; did you mean val/f1_weighted?"),
        (["optimizer.class._target_=torch.optim.Adamm"], "optimizer.class: torch.optim.Adamm: there is no such class"),
    ],
)
def test_what_is_refused_leaves_no_run_behind(
    settings: list[str], said: str, encoders: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        fit(configured(f"model.name={encoders('distilbert')}", "data.train_size=40", *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "resume=latest would take it up"


def test_a_run_can_be_resumed_once_it_knows_its_data(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that was killed in between would go on with any other."""

    def kill(path: Path, _: Any) -> None:
        if path.name == "data.json":
            raise Killed

    monkeypatch.setattr(fitting.files, "write_json", kill)
    with pytest.raises(Killed):
        fit(configured(f"model.name={encoders('distilbert')}", "data.train_size=40"), tmp_path / "run")
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_run_that_cannot_go_on_keeps_its_history(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("step,epoch\n1,0\n")
    trainer: Any = None  # not asked
    History(path, 1).on_exception(trainer, trainer, UserError("the frozen weights are others"))
    assert path.read_text() == "step,epoch\n1,0\n"


@pytest.mark.parametrize(
    ("extra", "stops"),
    [
        ([], [9, 18, 27]),
        (["trainer.eval_every=4"], [4, 12, 27]),
        (["data.batch_size=72"], [1, 2, 3]),
        (["trainer.max_steps=12"], [12]),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=1"], [9]),
    ],
)
def test_a_run_killed_after_a_validation_goes_on_behind_it(
    extra: list[str], stops: list[int], encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each interval ends with a validation there is no other place to save; the last leaves the evaluation."""
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "trainer.log_every=1", *extra,
    ]  # fmt: skip
    fit(configured(*settings), tmp_path / "whole")
    for stop in stops:
        run = tmp_path / f"stopped-{stop}"
        with monkeypatch.context() as patch:
            kill_at(stop, patch, "on_validation_end")
            with pytest.raises(Killed):
                fit(configured(*settings, f"trainer.checkpoint_every={stop}"), run)
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == stop
        fit(configured(f"resume={run}"), run)
        assert files_of(run) == files_of(tmp_path / "whole")


def test_a_signal_in_the_validation_that_stops_early_is_heard(
    encoders: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What early stopping decided is no part of a checkpoint: the run goes on from the one before.

    A signal of a scheduler is passed on to what its launcher does with it.
    """
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "trainer.log_every=1", "callbacks=early_stopping",
        "+callbacks.early_stopping.stopping_threshold=0",
    ]  # fmt: skip
    with caplog.at_level(logging.INFO):
        fit(configured(*settings), tmp_path / "whole")
    assert "Stopped early: Stopping threshold reached: val/f1 = " in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(Resumable, "on_validation_start", lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(Interrupted, match="resume="):
            fit(configured(*settings), tmp_path / "run")
    signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
    fit(configured(f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_frozen_layers_are_computed_says_how_to_go_on(
    number: signal.Signals, encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGUSR1, end)
    settings = [f"model.name={encoders('distilbert')}", "data.train_size=24", "data.eval_size=12", "freeze=head"]
    with monkeypatch.context() as patch:
        patch.setattr(FrozenPrefix, "_compute", lambda *_: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=r"Stopped\. Resume with: python train\.py resume=") as stopped:
            fit(configured(*settings), tmp_path / "run")
    assert stopped.value.exit_code == 128 + number
    assert signal.signal(signal.SIGUSR1, before) is end
    fit(configured(f"resume={tmp_path / 'run'}"), tmp_path / "run")


def test_frozen_layers_are_read_or_run_as_before_the_stop(
    encoders: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The disk of the cache was full and has room again, and the other way round."""

    def full(*_: Any) -> None:
        raise Unusable("the disk is full")

    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=24", "data.eval_size=12", "data.batch_size=8",
        "data.epochs=2", "optimizer.lr=1e-2", "freeze=first_n", "freeze.n=1", "freeze.reuse_dtype=bfloat16",
    ]  # fmt: skip
    fit(configured(*settings, "freeze.reuse=off"), tmp_path / "computed")
    expected = files_of(tmp_path / "computed")["weights"]
    for run, before in ((tmp_path / "filled", False), (tmp_path / "emptied", True)):
        with monkeypatch.context() as patch:
            kill_at(4, patch)
            if before:
                patch.setattr(FrozenPrefix, "states", full)
            with pytest.raises(Killed):
                fit(configured(*settings, "trainer.checkpoint_every=1"), run)
        with monkeypatch.context() as patch:
            if not before:
                patch.setattr(FrozenPrefix, "states", full)
            caplog.clear()
            fit(configured(f"resume={run}"), run)
        assert ("weights will differ a little" in caplog.text) is not before
        assert (files_of(run)["weights"] == expected) is before


def test_the_best_is_that_of_the_state_to_go_on_from(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU what came between the state and the kill may not come again."""
    run, loss = tmp_path / "run", Outputs.loss
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "monitor=val/loss", "trainer.eval_every=3",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Resumable, "_due", lambda self, trainer: trainer.global_step == 9)
        kill_at(18, patch, "on_validation_end")
        with pytest.raises(Killed):
            fit(configured(*settings), run)
    assert torch.load(run / "checkpoints/best.ckpt", weights_only=True)["global_step"] > 9
    monkeypatch.setattr(Outputs, "loss", lambda self, function: loss(self, function) + 1)
    fit(configured(f"resume={run}"), run)
    best = json.loads((run / "metrics.json").read_text())["best"]
    with (run / "history.csv").open() as file:
        losses = {int(row["step"]): float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]}
    assert (best["step"], best["score"]) == (min(losses, key=losses.__getitem__), pytest.approx(min(losses.values())))
    assert best["step"] <= 9
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"last\.ckpt: damaged: .*the run starts over"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_run_goes_on_with_as_many_processes() -> None:
    check_same_size({"random": [{}, {}]}, 2)
    with pytest.raises(UserError, match="began on 2 devices and cannot resume on 1"):
        check_same_size({"random": [{}, {}]}, 1)


def test_a_run_is_of_one_process_at_a_time(script: Run, tmp_path: Path) -> None:
    commands = {
        "new": ["hydra.run.dir=new"],
        "run": ["resume=run", "hydra.run.dir=other"],
        "many": ["-m", "seed=1,2", "hydra.sweep.dir=many"],
    }
    for folder in commands:
        (tmp_path / folder).mkdir()
    (tmp_path / "run/config.yaml").touch()
    with occupy(tmp_path / "new"), occupy(tmp_path / "run"), occupy(tmp_path / "many"):
        for folder, arguments in commands.items():
            done = script("train.py", *arguments, ok=False)
            assert done.returncode == 2
            assert done.stderr == f"error: {folder}: in use by another process. Wait for it, or stop it.\n"
        assert (tmp_path / "new/.lock").is_file(), "where another has begun nothing is tidied up"
    assert not list((tmp_path / "many").glob("*/"))


def test_nothing_is_saved_while_gradients_are_gathered(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation can fall between the two batches of a step, since the last of an epoch has one only."""
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "trainer.log_every=1", "trainer.accumulate_grad_batches=2",
        "trainer.eval_every=3",
    ]  # fmt: skip
    fit(configured(*settings), tmp_path / "whole")
    validated = 0
    on_validation_end = Resumable.on_validation_end

    def stop_in_the_second(self: Resumable, *rest: Any) -> None:
        nonlocal validated
        validated += 1
        self.signal = signal.SIGTERM if validated == 2 else self.signal
        on_validation_end(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Resumable, "on_validation_end", stop_in_the_second)
        with pytest.raises(Interrupted):
            fit(configured(*settings), tmp_path / "run")
    fit(configured(f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("epochs", [9, 1])
def test_a_signal_is_heard_where_every_batch_ends_with_a_validation(
    epochs: int, encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resumable, "on_train_batch_start", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    settings = ["data.train_size=24", "data.eval_size=24", f"data.epochs={epochs}", "data.batch_size=24"]
    with pytest.raises(Interrupted):
        fit(configured(f"model.name={encoders('distilbert')}", *settings), tmp_path / "run")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


def test_a_run_that_was_moved_goes_on_as_it_is(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with its best checkpoint: here the first, since the worst is asked for."""
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=48", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "monitor=val/loss", "mode=max",
    ]  # fmt: skip
    fit(configured(*settings), tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(15, patch)
        with pytest.raises(Killed):
            fit(configured(*settings, "trainer.checkpoint_every=1"), tmp_path / "killed")
    moved = (tmp_path / "killed").rename(tmp_path / "moved")
    fit(configured(f"resume={moved}"), moved)
    assert files_of(moved) == files_of(tmp_path / "whole")


def test_a_run_does_not_go_on_with_other_data(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "moods.txt"
    data.write_text("".join(f"row {i} is {'glad' * (i % 2)};{'joy' if i % 2 else 'fear'}\n" for i in range(60)))
    kill_at(3, monkeypatch)
    settings = ["data=txt", f"data.path={data}", "data.batch_size=8", "data.epochs=3", "trainer.checkpoint_every=1"]
    with pytest.raises(Killed):
        fit(configured(f"model.name={encoders('distilbert')}", *settings), tmp_path / "run")
    data.write_text(data.read_text().replace("glad", "happy"))
    with pytest.raises(UserError, match="the data has changed since the run began"):
        fit(configured(f"resume={tmp_path / 'run'}"), tmp_path / "run")


def test_a_run_goes_on_where_its_data_has_moved_in_batches_that_fit(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, moved, run = tmp_path / "moods.txt", tmp_path / "moved.txt", tmp_path / "run"
    data.write_text("".join(f"row {i} is {'glad' * (i % 2)};{'joy' if i % 2 else 'fear'}\n" for i in range(60)))
    encoder = f"model.name={encoders('distilbert')}"
    settings = [encoder, "data=txt", f"data.path={data}", "data.batch_size=8", "data.epochs=3"]
    fit(configured(*settings), tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(3, patch)
        with pytest.raises(Killed):
            fit(configured(*settings, "trainer.checkpoint_every=1"), run)
    data.rename(moved)
    with pytest.raises(UserError, match=r"moods\.txt: no such file or folder\. Check data\.path"):
        fit(configured(f"resume={run}"), run)
    given = [f"resume={run}", f"data.path={moved}", "data.eval_batch_size=2", "trainer.checkpoint_every=null"]
    fit(configured(*given, "seed=7"), run, origin={"overrides": given})
    config = load_config(run)
    assert (config.data.path, config.data.eval_batch_size, config.seed, config.resume) == (str(moved), 2, 42, None)
    assert config.data.name == "moods"
    assert files_of(run)["weights"] == files_of(tmp_path / "whole")["weights"]


def test_a_checkpoint_that_lacks_weights_is_refused(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(3, monkeypatch)
    settings = ["data.train_size=40", "data.eval_size=20", "data.batch_size=8", "trainer.checkpoint_every=1"]
    with pytest.raises(Killed):
        fit(configured(f"model.name={encoders('distilbert')}", "freeze=head", *settings), tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    saved = torch.load(last, weights_only=True)
    del saved["state_dict"]["network.classifier.weight"]
    torch.save(saved, last)
    with pytest.raises(UserError, match="other weights than this run trains"):
        fit(configured(f"resume={tmp_path / 'run'}"), tmp_path / "run")


def test_the_same_seed_gives_the_same_numbers(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    settings = [f"model.name={encoders('bert')}", "data.train_size=48", "data.eval_size=20", "data.epochs=1"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(configured(*settings, f"seed={seed}"), tmp_path / name)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a")["weights"] != files_of(tmp_path / "c")["weights"]


@pytest.mark.parametrize("begun", ["now", "by an earlier version"])
def test_training_only_the_used_rows_of_the_embeddings_changes_no_result(
    begun: str, encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=3",
        "data.batch_size=8", "optimizer.lr=1e-2", "trainer.checkpoint_every=1",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(EncoderModule, "train_tokens", lambda *_: None)
        fit(configured(*settings), tmp_path / "plain")
        kill_at(10, patch)
        with pytest.raises(Killed):
            fit(configured(*settings), tmp_path / "stopped")
    own = tmp_path / "own"
    if begun == "now":
        fit(configured(*settings), own)
    else:
        (tmp_path / "stopped").rename(own)
        fit(configured(f"resume={own}"), own)
    plain, weights = (load_file(run / "model/model.safetensors") for run in (tmp_path / "plain", own))
    assert plain.keys() == weights.keys()
    for name, value in plain.items():
        assert torch.allclose(value, weights[name], atol=1e-4), name
    tables = [json.loads((run / "parameters.json").read_text()) for run in (tmp_path / "plain", own)]
    assert tables[0] == tables[1]


def test_a_run_that_is_stopped_in_its_evaluation_has_its_training_behind_it(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=1",
        "data.batch_size=8", "trainer.checkpoint_every=null",
    ]  # fmt: skip
    fit(configured(*settings), tmp_path / "whole")
    monkeypatch.setattr(resuming, "LATE", 0.0)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "finish", killed)
        with pytest.raises(Killed):
            fit(configured(*settings), tmp_path / "run")
    monkeypatch.setattr(EncoderModule, "training_step", lambda *_: pytest.fail("it trains again"))
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 9
    monkeypatch.setattr(fitting, "report", killed)  # a page that is missing needs no state: evaluate.py draws it
    with pytest.raises(Killed):
        fit(configured(f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints/last.ckpt").exists()
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("verb", ["train", "predict"])
def test_sigterm_ends_any_script_as_ctrl_c_does(verb: str, tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "script.py").write_text(f"""
import atexit, logging, os, signal, time
from thaw.cli import command

atexit.register(logging.warning, "as torch does, once the folder of the run is gone")

@command("{verb}", {{}})
def main(config):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

main()
""")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("as torch does")]
    assert (done.returncode, said) == (128 + signal.SIGTERM, ["Interrupted."])
    assert not list(tmp_path.glob("outputs/*"))


def test_sigterm_ends_a_multirun_that_is_between_its_runs(tmp_path: Path) -> None:
    """As while it waits for the processes of joblib, which would be left behind."""
    code = f"""
import os, runpy, signal, sys, time
from thaw.multirun import Summarise

def begin(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

Summarise.on_multirun_start = begin
sys.argv = ["train.py", "-m", "seed=1,2"]
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "Interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first_and_says_how_to_go_on(
    number: signal.Signals, encoders: Callable[[str], Path], script: Run, tmp_path: Path
) -> None:
    command = [
        sys.executable, str(ROOT / "train.py"), f"model.name={encoders('distilbert')}", "data.train_size=200",
        "data.eval_size=24", "data.batch_size=4", "data.epochs=4", "trainer.checkpoint_every=null",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    while "epoch 1 " not in process.stdout.readline():
        time.sleep(0.01)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + number, complaint
    run = only_run(tmp_path)
    assert f"python train.py resume={run.relative_to(tmp_path)}" in complaint
    assert (run / "checkpoints/last.ckpt").is_file()
    spent = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["resume"]["seconds"]
    resumed = script("train.py", f"resume={run.relative_to(tmp_path)}")
    assert "Resuming after batch" in resumed.stdout
    assert json.loads((run / "metrics.json").read_text())["seconds"]["train"] > spent > 0


def test_compiled_layers_change_nothing_and_compile_once_for_all_lengths(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by the compiler, without the C++ that it would write, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=72", "data.eval_size=24", "data.epochs=2",
        "data.batch_size=8", "optimizer.lr=1e-2", "trainer.log_every=1", "model.dropout=0",
    ]  # fmt: skip
    fit(configured(*settings), tmp_path / "plain")
    counters.clear()
    fit(configured(*settings, "trainer.compile=true"), tmp_path / "compiled")
    assert 0 < counters["stats"]["unique_graphs"] <= 12
    assert not counters["graph_break"]
    histories = [np.genfromtxt(tmp_path / run / "history.csv", delimiter=",")[1:] for run in ("plain", "compiled")]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    with monkeypatch.context() as patch:
        kill_at(10, patch)
        with pytest.raises(Killed):
            fit(configured(*settings, "trainer.compile=true", "trainer.checkpoint_every=1"), tmp_path / "killed")
    fit(configured(f"resume={tmp_path / 'killed'}"), tmp_path / "unused")
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "compiled")


def test_a_run_leaves_neither_its_handlers_nor_its_weights_behind(
    encoders: Callable[[str], Path], tmp_path: Path
) -> None:
    """Else SIGTERM would be lost on the evaluation after the training, and a long multirun would fill the memory."""
    before = [signal.getsignal(number) for number in SIGNALS]
    settings = [f"model.name={encoders('distilbert')}", "data.train_size=24", "data.eval_size=12", "data.epochs=1"]
    fit(configured(*settings), tmp_path / "run")
    assert [signal.getsignal(number) for number in SIGNALS] == before
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is EncoderModule]


def test_only_training_counts_as_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the time to look up the machine and to log in with W&B, which comes before."""
    now = 1.0
    monkeypatch.setattr(resuming.time, "monotonic", lambda: now)
    resumable = Resumable(tmp_path, None)
    now = 101.0
    with resumable.listening():
        now = 103.0
        assert resumable.seconds_spent() == 2


@pytest.mark.parametrize(
    ("extra", "said"), [([], True), (["trainer.precision=bf16-mixed"], False), (["freeze=head"], False)]
)
def test_long_training_in_float32_hears_of_a_faster_precision(
    extra: list[str], said: bool, encoders: Callable[[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    monkeypatch.setattr(training, "SLOW", 0)
    monkeypatch.setattr(training, "fast_in_bfloat16", lambda: True)
    settings = [f"model.name={encoders('bert')}", "data.train_size=48", "data.eval_size=20", "data.epochs=2"]
    fit(configured(*settings, *extra), tmp_path / "run")
    assert ("trainer.precision=bf16-mixed" in caplog.text) == said


def test_what_cannot_be_resumed_says_so(script: Run, tmp_path: Path) -> None:
    for arguments, problem in (
        (["resume=nowhere"], "nowhere: no such run folder"),
        (["resume=lastest"], "lastest: no such run folder. Did you mean latest?"),
        (["resume=."], "not a run folder"),
        (["resume=nowhere", "seed=2"], "seed=2 with resume: a resumed run keeps its own settings. Leave it out, or"),
        (
            ["resume=nowhere", "optimizer.lr=1"],
            "These may change: trainer.progress_bar, trainer.checkpoint_every, data.",
        ),
        (["resume=nowhere", "data.eval_batch_size=0"], "data.eval_batch_size=0 is not a whole number of at least 1"),
        (["resume=nowhere", "data.eval_batch_size=8"], "nowhere: no such run folder"),
    ):
        done = script("train.py", *arguments, ok=False)
        assert done.returncode == 2
        assert problem in done.stderr
    assert not list(tmp_path.iterdir())


def test_intervals() -> None:
    assert parse_interval(500) == (500, None)
    assert parse_interval("10min") == (None, 600)
    assert parse_interval("30s") == (None, 30)
    assert parse_interval(None) == (None, None)

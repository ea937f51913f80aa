"""Several processes for one run, several runs in one process, and what the loggers keep of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, configured, only_run
from thaw.runs import read_jsonl
from thaw.training.fit import fit


def test_two_processes_give_the_figures_of_one(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    """Same global batch: the same losses, and figures over every row once, though 25 rows do not divide by two."""
    settings = [
        f"model.name={encoders('distilbert')}", "data.train_size=64", "data.eval_size=25", "data.epochs=2",
        "model.dropout=0", "optimizer.lr=1e-2", "trainer.log_every=1",
    ]  # fmt: skip
    done = script("train.py", *settings, "trainer=ddp_cpu", "data.batch_size=4")
    assert done.stdout.count("epoch 1 ") == 1, "only the first process speaks"
    run = only_run(tmp_path)
    fit(configured(*settings, "data.batch_size=8"), tmp_path / "one")
    two, one = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / "one"))
    for name in ("validation/loss", "validation/accuracy", "test/loss", "test/f1"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    assert len((run / "predictions/test.jsonl").read_text().splitlines()) == 25


def test_runs_of_a_multirun_stay_apart_in_wandb(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    script(
        "train.py", "-m", f"model.name={encoders('distilbert')}", "data.train_size=48", "data.eval_size=20",
        "data.epochs=1", "seed=1,2", "logger=wandb_offline",
        env={"WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    wandb = shutil.which("wandb", path=str(Path(sys.executable).parent))
    assert wandb is not None
    runs = sorted(tmp_path.glob("outputs/multirun/*/[01]"))
    assert len(runs) == 2
    seeds = []
    for run in runs:
        (offline,) = run.glob("wandb/offline-run-*/*.wandb")
        command = [wandb, "leet", "inspect", "--summary", "--json", str(offline)]
        kept = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        seeds.append(kept["config"]["seed"])
        metrics = json.loads((run / "metrics.json").read_text())
        assert kept["summary"]["test/loss"] == pytest.approx(metrics["test/loss"])
        assert kept["summary"]["test/confusion_matrix_table"]["nrows"] == 36
        wrong = [row for row in read_jsonl(run / "predictions/test.jsonl") if row["label"] != row["predicted"]]
        assert kept["summary"]["test/errors"]["nrows"] == len(wrong)
    assert seeds == [1, 2]


def test_several_devices_in_a_multirun_are_refused(encoders: Callable[[str], Path], script: Run) -> None:
    done = script("train.py", "-m", f"model.name={encoders('bert')}", "trainer=ddp_cpu", "seed=1,2", ok=False)
    assert done.returncode == 2
    assert "trainer.devices=1" in done.stderr


def test_tensorboard_keeps_the_figures(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = [f"model.name={encoders('distilbert')}", "data.train_size=48", "data.eval_size=20", "data.epochs=1"]
    fit(configured(*settings, "logger=tensorboard"), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert events.Scalars("test/loss")[0].value == pytest.approx(metrics["test/loss"])
    assert "val/f1" in events.Tags()["scalars"]

"""Sweeps with real runs: presets, Optuna with pruning, processes side by side, jobs of schedulers."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run
from thaw.files import read_json

SMALL = ["data.train_size=48", "data.eval_size=20", "data.epochs=1"]


def folders(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("*/metrics.json"))


def test_a_preset_needs_no_flag_and_gives_commands_of_single_runs(
    encoders: Callable[[str], Path], script: Run, tmp_path: Path
) -> None:
    script(
        "train.py", "sweep=seeds", f"model.name={encoders('distilbert')}", *SMALL, "hydra.sweep.dir=sweep", "seed=4,5"
    )
    runs = folders(tmp_path / "sweep")
    commands = [read_json(run / "environment.json")["command"] for run in runs]
    assert ["seed=4" in command for command in commands] == [True, False], "the command line counts, not 1,2,3"
    assert not any("sweep" in command for command in commands)


def test_optuna_prunes_and_goes_on(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    """Rates far too low learn nothing, and end after their second validation."""
    settings = [
        "sweep=optuna", f"model.name={encoders('distilbert')}", "data.train_size=64", "data.eval_size=24",
        "data.epochs=3", "optimizer.lr=1e-2,1e-9,1e-8", "hydra.sweeper.sampler=grid", "hydra.sweep.dir=study",
        "monitor=val/loss", "mode=min", "hydra.sweeper.startup_trials=1",
        "optimizer.warmup_ratio=0", "optimizer.weight_decay=0", "data.batch_size=16",
    ]  # fmt: skip
    script("train.py", *settings, "hydra.sweeper.n_trials=1")
    done = script("train.py", *settings)
    study = tmp_path / "study"
    rows = list(csv.DictReader((study / "study.csv").open()))
    assert [row["state"] for row in rows] == ["complete", "pruned", "pruned"]
    assert "python train.py" in done.stdout
    assert float(rows[0]["val/loss"]) == pytest.approx(read_json(study / "lr-0.01/metrics.json")["best"]["score"])
    pruned = read_json(study / "lr-1e-09/pruned.json")
    assert (pruned["monitor"], pruned["validations"]) == ("val/loss", 2)
    assert not (study / "lr-1e-09/metrics.json").exists()
    assert "data.epochs=3 mode=min" not in (study / "study.html").read_text()


def test_a_study_that_cannot_begin_leaves_nothing(script: Run, tmp_path: Path) -> None:
    assert script("train.py", "sweep=optuna", "hydra.sweeper.n_trials=0", ok=False).returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(script: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = script("train.py", "-m", "seed=1,2", f"hydra.sweep.dir={tmp_path}/file/x", ok=False)
    assert done.stderr == f"error: {tmp_path}/file/x: cannot be made: Not a directory. Change hydra.sweep.dir.\n"


def test_processes_side_by_side(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    """joblib: two trials of a study at once, each with its share of the cores, reporting to the same file."""
    done = script(
        "train.py", "sweep=optuna", f"model.name={encoders('distilbert')}", *SMALL, "hydra/launcher=joblib",
        "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=study",
        env={"OMP_NUM_THREADS": None},
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "study/study.csv").open()))
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert done.stdout.count("is launching") == 2
    for run in folders(tmp_path / "study"):
        assert read_json(run / "environment.json")["threads"] == max((os.cpu_count() or 1) // 2, 1)

"""Several processes for one run, several runs in one process, and what the loggers keep of them."""

import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from conftest import ROOT, Run, configured, only_run
from thaw.errors import UserError
from thaw.files import read_jsonl
from thaw.multirun import begin, keep_failure
from thaw.runs import occupy
from thaw.training.fit import fit

TWO = ["data.train_size=64", "data.eval_size=25", "data.epochs=2", "model.dropout=0", "optimizer.lr=1e-2"]


def assert_figures_of_one(run: Path, one: Path, settings: list[str]) -> None:
    """Same global batch: the same losses, and figures over every row once, though 25 rows do not divide by two."""
    fit(configured(*settings, "data.batch_size=8"), one)
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (run, one))
    for name in ("validation/loss", "validation/accuracy", "test/loss", "test/f1"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    assert len((run / "predictions/test.jsonl").read_text().splitlines()) == 25


def test_two_processes_give_the_figures_of_one(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    settings = [f"model.name={encoders('distilbert')}", *TWO]
    done = script("train.py", *settings, "trainer=ddp_cpu", "data.batch_size=4")
    assert done.stdout.count("epoch 1 ") == 1, "only the first process speaks"
    assert_figures_of_one(only_run(tmp_path), tmp_path / "one", settings)


def test_a_model_split_over_two_processes_goes_on_after_a_kill(
    encoders: Callable[[str], Path], script: Run, tmp_path: Path
) -> None:
    # A decay that shows, and batches of validation that do not divide by two.
    also = ["optimizer.weight_decay=1", "data.eval_batch_size=10"]
    settings = [f"model.name={encoders('distilbert')}", *TWO, "freeze=first_n", "freeze.n=1", *also]
    run = tmp_path / "run"
    command = ["train.py", *settings, "trainer=fsdp_cpu", "data.batch_size=4", "trainer.checkpoint_every=3"]
    process = subprocess.Popen(
        [sys.executable, *command, f"hydra.run.dir={run}"], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (run / "checkpoints/last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "metrics.json").is_file()
    assert "Resuming after batch" in script("train.py", f"resume={run}").stdout
    assert_figures_of_one(run, tmp_path / "one", settings)


def test_runs_of_a_multirun_stay_apart_in_wandb(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    done = script(
        "train.py", "-m", f"model.name={encoders('distilbert')}", "data.train_size=48", "data.eval_size=20",
        "data.epochs=1", "seed=1,2", "freeze=head", "logger=wandb_offline",
        env={"WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    wandb = shutil.which("wandb", path=str(Path(sys.executable).parent))
    assert wandb is not None
    runs = sorted(tmp_path.glob("outputs/multirun/*/seed-[12]"))
    assert len(runs) == 2
    seeds = []
    for run in runs:
        (offline,) = run.glob("wandb/offline-run-*/*.wandb")
        command = [wandb, "leet", "inspect", "--summary", "--json", str(offline)]
        kept = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        seeds.append(kept["config"]["seed"])
        assert kept["config"]["chosen"]["freeze"] == "head"
        metrics = json.loads((run / "metrics.json").read_text())
        assert kept["summary"]["test/loss"] == pytest.approx(metrics["test/loss"])
        assert kept["summary"]["test/confusion_matrix_table"]["nrows"] == 36
        wrong = [row for row in read_jsonl(run / "predictions/test.jsonl") if row["label"] != row["predicted"]]
        assert kept["summary"]["test/errors"]["nrows"] == len(wrong)
    assert seeds == [1, 2]
    (folder,) = tmp_path.glob("outputs/multirun/*")
    name = f"outputs/multirun/{folder.name}"
    assert f"Sync     wandb sync {name}/wandb/offline-run-* {name}/*/wandb/offline-run-*" in done.stdout
    (offline,) = folder.glob("wandb/offline-run-*/*.wandb")
    command = [wandb, "leet", "inspect", "--summary", "--json", str(offline)]
    kept = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (kept["name"], kept["summary"]["sweep"]["nrows"]) == (f"summary of {folder.name}", 1)


def test_several_devices_in_a_multirun_are_refused(encoders: Callable[[str], Path], script: Run) -> None:
    done = script("train.py", "-m", f"model.name={encoders('bert')}", "trainer=ddp_cpu", "seed=1,2", ok=False)
    assert done.returncode == 1
    assert "trainer.devices=1" in done.stderr


def test_tensorboard_keeps_the_figures(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = [f"model.name={encoders('distilbert')}", "data.train_size=48", "data.eval_size=20", "data.epochs=1"]
    fit(configured(*settings, "logger=tensorboard"), tmp_path)
    told = yaml.safe_load((tmp_path / "tensorboard/hparams.yaml").read_text())
    assert "optimizer.lr" in told
    assert "optimizer" not in told, "each setting once"
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert events.Scalars("test/loss")[0].value == pytest.approx(metrics["test/loss"])
    assert "val/f1" in events.Tags()["scalars"]


SMALL = ["data.train_size=48", "data.eval_size=20", "data.epochs=1"]


def test_a_multirun_goes_on_past_failures_and_is_not_done_again(
    encoders: Callable[[str], Path], script: Run, tmp_path: Path
) -> None:
    settings = ["-m", f"model.name={encoders('distilbert')}", *SMALL, "seed=1,2", "data.max_length=16,9999"]
    done = script("train.py", *settings, ok=False)
    assert done.returncode == 1
    assert "failed: data.max_length=9999" in done.stdout
    assert done.stdout.count("tokens per text, median") == 1, "the data of the second seed is that of the first"
    assert done.stdout.count("test: accuracy ") == 2
    (folder,) = tmp_path.glob("outputs/multirun/*")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        f"seed-{seed}_max_length-{length}" for seed in (1, 2) for length in (16, 9999)
    ]
    with (folder / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "failed"] * 2
    scores = [json.loads((folder / row["run"] / "metrics.json").read_text())["best"]["score"] for row in rows[::2]]
    assert [float(row["score"]) for row in rows[::2]] == scores
    assert f"{statistics.mean(scores):.4f} ± {statistics.stdev(scores):.4f}" in (folder / "summary.md").read_text()
    page = (folder / "summary.html").read_text()
    assert 'href="seed-1_max_length-16/report.html"' in page
    assert "this encoder takes 3 to 64 tokens" in page

    assert all((folder / row["run"] / "report.html").is_file() == (row["status"] == "finished") for row in rows)
    (folder / "seed-1_max_length-16/report.html").unlink()  # as when it is killed while the page is drawn

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}
    again = script("train.py", *settings, ok=False)
    assert again.stdout.count("is finished already") == 2
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")} == before
    assert (folder / "seed-1_max_length-16/report.html").is_file()
    (folder / "seed-2_max_length-16/metrics.json").unlink()  # as when it is still at work
    with occupy(folder / "seed-2_max_length-16"):
        assert "seed-2_max_length-16: in use by another process" in script("train.py", *settings, ok=False).stderr
    with (folder / "runs.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished", "failed", "stopped", "failed"]
    again = script("train.py", *settings, ok=False)
    assert again.returncode == 1
    shown = script("report.py", f"runs={folder}")
    assert shown.stdout.splitlines()[1:] == again.stdout[again.stdout.index("\n4 runs of") :].splitlines()[1:]


def test_folds_together_tell_of_every_row(encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    rows = [(f"text {i} is {'good' if i % 2 else 'bad'}", "yes" if i % 2 else "no") for i in range(60)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    data = ["data=csv", "data.path=rows.csv", "data.epochs=2", "data.folds=3", f"model.name={encoders('distilbert')}"]
    done = script("train.py", "sweep=folds", *data, "freeze=head,all_but_last_n", "optimizer.lr=1e-2")
    assert "Best on validation: freeze=" in done.stdout, "folds are repetitions"
    assert len(list((tmp_path / "outputs").rglob("metrics.json"))) == 6
    (folder,) = tmp_path.glob("outputs/multirun/*")
    best = re.search(r"Best on validation: freeze=(\w+)", done.stdout)[1]  # type: ignore[index]
    found = read_jsonl(folder / "out_of_fold.jsonl")
    assert [(row["place"], row["text"], row["label"]) for row in found] == [
        (f"rows.csv:{i + 2}", *row) for i, row in enumerate(rows)
    ]
    assert sorted(row["fold"] for row in found) == [1] * 20 + [2] * 20 + [3] * 20
    runs = {fold: folder / f"fold-{fold}_freeze-{best}" for fold in (1, 2, 3)}
    assert all(
        sorted(row["text"] for row in found if row["fold"] == fold)
        == sorted(row["text"] for row in read_jsonl(run / "predictions/test.jsonl"))
        for fold, run in runs.items()
    )
    right = sum(row["label"] == row["predicted"] for row in found) / 60
    (line,) = re.findall(rf"^  {best} +60 +([\d.]+)", done.stdout, re.MULTILINE)
    assert float(line) == pytest.approx(right, abs=1e-4)
    with (folder / "label_errors.csv").open(encoding="utf-8-sig") as file:
        errors = list(csv.DictReader(file))
    assert f"{len(errors)} likely label error" in done.stdout
    assert all(row["label"] != row["suggested"] for row in errors)
    assert 'href="label_errors.csv"' in (folder / "summary.html").read_text()
    (command,) = re.findall(r"<pre>python (train.*)</pre>", (folder / "summary.html").read_text())
    assert command.endswith(" data.test_size=0"), "without a fold, on all rows"
    done = script(*command.split())
    assert "python evaluate.py run=" in done.stdout
    assert "split=validation" in done.stdout
    assert "There is no test split: validation picked the checkpoint" in done.stdout


def test_a_finished_run_stands_when_what_it_was_made_of_is_gone(
    encoders: Callable[[str], Path], script: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(encoders("distilbert"), tmp_path / "encoder")
    shutil.copytree(ROOT / "samples/emotion", tmp_path / "rows")
    settings = ["-m", "model.name=encoder", "data.path=rows", *SMALL, "seed=1,2"]
    done = script("train.py", *settings)
    shutil.rmtree(tmp_path / "encoder")
    shutil.rmtree(tmp_path / "rows")
    again = script("train.py", *settings)
    assert again.stdout.count("is finished already") == 2
    assert done.stdout[done.stdout.index("\n2 runs of") :] == again.stdout[again.stdout.index("\n2 runs of") :]
    run = next(tmp_path.glob("outputs/multirun/*/seed-1"))
    task = SimpleNamespace(overrides=SimpleNamespace(task=["seed=1"]))
    monkeypatch.setattr(HydraConfig, "get", lambda: task)
    keep_failure(UserError("it failed later"), run)
    assert not (run / "failure.json").exists()


def test_a_stopped_run_of_a_multirun_goes_on_and_a_changed_one_is_set_aside(
    encoders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(ROOT / "samples/emotion", tmp_path / "data")
    settings = [f"model.name={encoders('distilbert')}", *SMALL, f"data.path={tmp_path}/data"]
    run = tmp_path / "seed-1"
    fit(configured(*settings), run)
    config = configured(*settings)
    begin(config, run)
    assert "was written after" not in caplog.text
    os.utime(tmp_path / "data/test.txt")
    assert begin(config, run) == json.loads((run / "metrics.json").read_text())["best"]["score"]
    assert "data/test.txt was written after it began" in caplog.text
    (run / "metrics.json").unlink()
    assert begin(config, run) is None
    assert config.resume == str(run)
    assert begin(configured(*settings, "optimizer.lr=1e-3"), run) is None
    assert (tmp_path / "earlier/seed-1/config.yaml").is_file()
    assert not list(run.iterdir())

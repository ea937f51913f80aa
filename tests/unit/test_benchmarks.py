"""The benchmarks' arithmetic, and that both sides are given the same settings."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import pairs
from benchmarks.pairs import ratios, report
from benchmarks.peer import scorer
from benchmarks.settings import FREEZES, SYSTEMS, checked
from benchmarks.side import run_trainer
from benchmarks.utilisation import forward_flops
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from conftest import ROOT
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.models.freezing import ADAPTERS, STRATEGIES


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"])
def test_flops_are_those_that_torch_counts_in_the_layers(architecture: str, encoders: Callable[[str], Path]) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(encoders(architecture), attn_implementation="eager")
    ids = torch.arange(5, 26).view(3, 7)
    with FlopCounterMode(display=False) as counter:
        network(input_ids=ids, attention_mask=torch.ones_like(ids))
    counts = counter.get_flop_counts()
    layers = [sum(ops.values()) for name, ops in counts.items() if name.rpartition(".")[2].isdigit()]
    assert forward_flops(network, np.array([7, 7, 7])) == sum(layers) > 0


def test_ratios_are_taken_pair_by_pair() -> None:
    rows = {"thaw": [{"seconds": 1.0}, {"seconds": 4.0}], "peer": [{"seconds": 3.0}, {"seconds": 4.0}]}
    assert ratios(rows)["peer"] == {"ratio": 2.0, "least": 1.0, "most": 3.0}


def test_the_first_system_is_the_base_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pairs, "RESULTS", tmp_path)
    rows = {
        "trainer_grouped": [{"seconds": 2.0, "peak_mb": 1.0}],
        "trainer_dynamic": [{"seconds": 3.0, "peak_mb": 1.0}],
    }
    report("train", ["seed=1"], rows)
    (line,) = (tmp_path / "train.jsonl").read_text().splitlines()
    assert [row["ratio"] for row in json.loads(line)["ratios"].values()] == [1.0, 1.5]
    assert "trainer_dynamic" in capsys.readouterr().out


def test_results_are_kept_though_the_table_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "RESULTS", tmp_path)
    with pytest.raises(KeyError, match="peak_mb"):
        report("train", [], {"thaw": [{"seconds": 2.0}]})
    assert (tmp_path / "train.jsonl").is_file()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("freeze=lora", "freeze.name"),
        ("optimizer=sgd", "optimizer.class"),
        ("optimizer.class.eps=1e-6", "optimizer.class"),
        ("freeze=lp_ft", "freeze.probe_lr"),
        ("optimizer.head_lr=1e-3", "optimizer.head_lr"),
        ("optimizer.layer_decay=0.9", "optimizer.layer_decay"),
        ("loss=balanced", "loss.class_weights"),
        ("loss=focal", "loss.focal_gamma"),
        ("data.label_separator='|'", "data.label_separator"),
        ("data.sampler=balanced", "data.sampler"),
        ("data.tokens_per_batch=512", "data.tokens_per_batch"),
        ("data.subword_labels=all", "data.score_subwords"),
        ("trainer.precision=bf16-true", "trainer.precision"),
        ("trainer.devices=2", "trainer.devices"),
        ("+callbacks.early_stopping.min_delta=0.1", "callbacks"),
    ],
)
def test_what_the_trainer_would_ignore_is_refused(override: str, key: str) -> None:
    settings = ["callbacks=early_stopping", override] if "callbacks" in override else [override]
    with pytest.raises(UserError, match=f"^{key}="):
        checked(["thaw", "trainer_grouped"], settings)
    checked(["thaw"], settings)


def test_what_the_trainer_can_follow_is_not_refused(tmp_path: Path) -> None:
    experiments = [path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")]
    for experiment in experiments:
        checked(SYSTEMS, [f"experiment={experiment}", f"data.path={tmp_path}"])
    checked(
        SYSTEMS, ["trainer=gpu", "loss=smoothed", "callbacks=early_stopping", "callbacks.early_stopping.patience=5"]
    )
    assert set(FREEZES) == {*STRATEGIES} - {*ADAPTERS}


def test_the_trainer_gets_the_settings(
    encoders: Callable[[str], Path], emotion_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.trainer import Trainer

    made: list[Any] = []
    train = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self: (made.append(self), train(self)))

    def trained(folder: str, *overrides: str) -> dict[str, float]:
        settings = ["data=txt", f"data.path={emotion_files}", f"model.name={encoders('bert')}", "model.dropout=0"]
        return run_trainer(checked(["trainer_dynamic"], [*settings, *overrides]), tmp_path / folder, "dynamic")

    # 48 rows: three steps an epoch of two batches each
    trained("steps", "data.batch_size=8", "trainer.accumulate_grad_batches=2", "trainer.max_steps=4",
            "optimizer.schedule=constant_with_warmup", "optimizer.warmup_steps=8", "loss.label_smoothing=0.2",
            "trainer.gradient_clip_val=null")  # fmt: skip
    assert made[0].state.global_step == made[0].state.max_steps == 4
    assert made[0].lr_scheduler.get_last_lr() == [made[0].args.learning_rate * 4 / 8] * 2
    assert made[0].label_smoother.epsilon == 0.2
    # One batch in two halves is one batch.
    settings = ["trainer.max_epochs=1", "trainer.max_steps=100"]
    whole = trained("whole", "data.batch_size=16", *settings)
    halves = trained("halves", "data.batch_size=8", "trainer.accumulate_grad_batches=2", *settings)
    assert made[1].state.global_step == made[2].state.global_step == 3
    assert halves["test/loss"] == pytest.approx(whole["test/loss"], rel=1e-5)
    losses = [trainer.state.log_history[-1]["train_loss"] for trainer in made[1:]]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_trainer_picks_its_best_epoch_by_strict_entities_where_thaw_does() -> None:
    labels = LabelSet("token", ("O", "B-PER", "I-PER"), (1, 1, 1), rows=1)
    gold = np.array([[0, 2, -100, 0], [1, 2, 0, -100]])
    logits = np.eye(3)[gold.clip(0)]
    assert scorer(labels, strict=False)((logits, gold))["f1"] == 1
    assert scorer(labels, strict=True)((logits[:1], gold[:1]))["f1"] == 0


def test_peak_memory_is_that_of_the_child_itself() -> None:
    # In a process of its own, since a child inherits the peak of the one that starts it.
    code = (
        "from benchmarks.sweep import timed\n"
        "print(*(timed(['-c', f'bytearray({size} << 20)'], 'none')[1] for size in (400, 1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    large, small = map(float, done.stdout.split())
    assert large > 400
    assert small < 200


def test_what_starts_the_systems_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom benchmarks import frozen, predict, quality, sweep, train\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train systems=thaw,trainer_grouped freeze=lora data=emotion_sample", "freeze.name=lora: thaw would obey"),
        ("frozen data.path=nowhere", "nowhere: no such file or folder"),
        ("quality systems=trainer_group", "trainer_group is not known"),
        ("quality modle=bert", "modle"),
        ("sweep cases=heads", "cases=heads is not known"),
        ("predict", "run or input is missing"),
        ("side trainer_grouped loss=focal", "loss.focal_gamma=2.0"),
        ("predict run=nowhere input=nowhere.txt pairs=1", "ended with exit code"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(command: str, said: str) -> None:
    module, *arguments = command.split()
    run = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last


def test_help_is_the_text_of_the_benchmark() -> None:
    run = [sys.executable, "-m", "benchmarks.train", "--help"]
    assert "python -m benchmarks.train" in subprocess.run(run, cwd=ROOT, capture_output=True, text=True).stdout

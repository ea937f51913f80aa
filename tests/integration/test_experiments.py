"""Experiments: one file for each published figure, and the table that sets it beside what was obtained."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from conftest import ROOT, Run, configured
from thaw.overrides import settings_of
from thaw.reporting.published import deviations, obtained, rows_of, verdict
from thaw.settings import check

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_names_its_command_and_what_it_is_to_reproduce(name: str) -> None:
    lines = (ROOT / f"conf/experiment/{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"  # which Hydra takes in the first line only
    assert lines[1].startswith((f"# python train.py experiment={name}", f"# python train.py -m experiment={name} "))
    config: Any = OmegaConf.to_container(configured(f"experiment={name}"), resolve=True)
    check(config)
    assert config["expected"]
    for one in config["expected"]:
        assert one["source"]
        assert one["reason"]
        assert one["value"] is None or one["tolerance"] > 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_with_another_encoder_keeps_its_protocol_only(name: str) -> None:
    own, other = configured(f"experiment={name}"), configured(f"experiment={name}", "model=minilm")
    assert other.model == configured("model=minilm").model
    assert (other.data, other.trainer, other.freeze) == (own.data, own.trainer, own.freeze)


ONE = {"figure": "test/accuracy", "value": 0.83, "tolerance": 0.02, "reason": "", "source": "", "open": ""}


@pytest.mark.parametrize(
    ("value", "others", "said"),
    [
        (0.845, [], "within tolerance"),
        (0.86, [], "above"),
        (ONE["value"] + ONE["tolerance"], [], "within tolerance"),
        (ONE["value"] - ONE["tolerance"], [], "within tolerance"),
        (0.8, [], "below"),
        (None, [], "not obtained"),
        (0.83, ["model=minilm"], "another protocol: model=minilm"),
    ],
)
def test_a_verdict_holds_for_the_protocol_as_published(value: float | None, others: list[str], said: str) -> None:
    assert verdict(ONE, value, others) == said
    assert verdict({**ONE, "value": None}, 0.83, []) == "none published"


def test_figures_are_read_where_they_stand(tmp_path: Path) -> None:
    metrics = {
        "test/accuracy": 0.9,
        "best": {"step": 20},
        "baselines": {"test": {"before training": {"auc": 0.51}}},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "history.csv").write_text("step,train/loss,val/f1\n10,1.0,0.5\n20,0.9,\n20,,0.7\n30,,0.6\n")
    assert obtained(tmp_path, "test/accuracy") == 0.9
    assert obtained(tmp_path, "val/f1") == 0.7
    assert obtained(tmp_path, "untrained test/auc") == 0.51
    assert obtained(tmp_path, "test/f1_micro") is None
    (row,) = rows_of("x", [ONE], {"experiment": "x", "seed": "1", "data.path": "y"}, [tmp_path, tmp_path])
    assert row == ["x", "test/accuracy", "0.83 ± 0.02", "0.9000 ± 0.0000", "2", "+0.0700", "above"]


def test_a_setting_that_was_left_out_is_another_protocol(tmp_path: Path) -> None:
    settings = settings_of(
        ["experiment=x", "~optimizer.class.fused", "~freeze.n=2", "+loss.extra=1", "~logger.wandb.tags"]
    )
    assert settings["optimizer.class.fused"] == settings["freeze.n"] == "–"
    assert deviations(settings) == ["~optimizer.class.fused", "~freeze.n", "loss.extra=1"]


def test_a_multirun_of_experiments_is_set_beside_what_was_published(
    encoders: Callable[[str], Path], script: Run, emotion_files: Path, tmp_path: Path
) -> None:
    settings = [
        f"model.name={encoders('distilbert')}",
        f"data.path={emotion_files}",
        "data.epochs=1",
        "trainer.eval_every=null",
    ]
    names = "emotion_distilbert_last_layer,emotion_distilbert_features"
    script("train.py", "-m", f"experiment={names}", "seed=1,2", *settings)
    (folder,) = tmp_path.glob("outputs/multirun/*")
    shown = script("report.py", f"runs={folder}", "paper=true")
    assert "Report  " in shown.stdout
    with (folder / "paper.csv").open() as file:
        rows = {(row["experiment"], row["figure"]): row for row in csv.DictReader(file)}
    assert [row["runs"] for row in rows.values()] == ["2", "2", "2"]
    assert all("another protocol" in row["verdict"] for row in rows.values())
    last = rows["emotion_distilbert_last_layer", "test/accuracy"]
    runs = folder.glob("experiment-emotion_distilbert_last_layer_seed-*/metrics.json")
    accuracies = [json.loads(path.read_text())["test/accuracy"] for path in runs]
    assert float(last["difference"]) == pytest.approx(sum(accuracies) / 2 - 0.83, abs=1e-4)
    page = (folder / "paper.html").read_text()
    assert 'experiment-emotion_distilbert_features_seed-2/report.html">' in page
    assert "paper.md" in {path.name for path in folder.iterdir()}
    refused = script("report.py", f"runs={emotion_files}", "paper=true", ok=False)
    assert refused.returncode == 2
    assert "no runs" in refused.stderr

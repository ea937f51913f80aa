"""Runs that reuse their frozen layers are the runs that do not."""

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import configured
from thaw.errors import UserError
from thaw.inference.predictor import Predictor
from thaw.models.prefix import FrozenPrefix
from thaw.runs import saved_rows
from thaw.scoring import predict_rows
from thaw.training.fit import fit

pytestmark = pytest.mark.usefixtures("no_pages")

Encoders = Callable[[str], Path]


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) for name in ("train/loss", "val/loss") if row[name]]


def trained(encoders: Encoders, folder: Path, *overrides: str) -> Path:
    settings = ["data.train_size=48", "data.eval_size=24", "data.batch_size=8", "trainer.log_every=1"]
    fit(configured(f"model.name={encoders('distilbert')}", *settings, *overrides), folder)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        ["freeze=head", "data.epochs=2"],
        ["freeze=all_but_last_n", "data.epochs=2"],
        ["freeze=first_n", "freeze.n=1", "data.epochs=2", "trainer.precision=bf16-mixed"],
        ["freeze=lp_ft", "freeze.probe_epochs=2", "data.epochs=3"],
        ["freeze=gradual", "freeze.every=2", "data.epochs=6"],
        ["freeze=all_but_last_n", "data=conll2003_sample", "data.max_length=12", "data.epochs=2"],
        ["freeze=lora", "freeze.n=1", "freeze.learning_rate=1e-2", "data.epochs=2"],
        ["freeze=pattern", r"freeze.pattern='layer\.[12]\.'", "data.epochs=2"],
        ["freeze=bitfit", "freeze.n=1", "freeze.learning_rate=1e-2", "data.epochs=2"],
    ],
    ids=lambda settings: settings[0],
)
def test_every_loss_is_that_of_a_run_without_reuse(
    settings: list[str], encoders: Encoders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        reused = trained(encoders, tmp_path / "on", *settings, "freeze.reuse=on")
    assert "computed once" in caplog.text
    plain = trained(encoders, tmp_path / "off", *settings, "freeze.reuse=off")
    assert losses(reused) == pytest.approx(losses(plain), rel=1e-5)
    figures = [json.loads((run / "metrics.json").read_text()) for run in (reused, plain)]
    assert figures[0]["test/f1"] == pytest.approx(figures[1]["test/f1"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_figures_of_a_run_with_reuse_are_those_of_evaluate(dtype: str, encoders: Encoders, tmp_path: Path) -> None:
    """Rounded states are for training only."""
    from thaw.evaluation import evaluate_run

    settings = ["freeze=all_but_last_n", "data.epochs=2", "freeze.reuse=on", f"freeze.reuse_dtype={dtype}"]
    run = trained(encoders, tmp_path / "run", *settings)
    settings = {"run": str(run), "split": "test", "output": str(tmp_path / "again.jsonl"), "data": {"path": None}}
    before = (run / "predictions/test.jsonl").read_text()
    *_, values = evaluate_run(settings)
    metrics = json.loads((run / "metrics.json").read_text())
    assert values["test/loss"] == metrics["test/loss"]
    assert (tmp_path / "again.jsonl").read_text() == before


def test_states_that_do_not_fit_are_done_without(encoders: Encoders, tmp_path: Path) -> None:
    run = trained(encoders, tmp_path / "run", "freeze=head", "data.epochs=1")
    plain = Predictor.from_run(run)
    texts, gold, *_ = saved_rows(run, "test", plain.labels)
    narrow = Predictor.from_run(run, prefix=lambda network: FrozenPrefix(network, 1, lambda _: [], limit=1))
    outputs = [predict_rows(predictor, texts, gold, "test").logits for predictor in (plain, narrow)]
    assert (outputs[0] == outputs[1]).all()


def test_auto_says_why_it_does_not_reuse_and_on_insists(
    encoders: Encoders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = ["freeze=all_but_last_n", "data.epochs=2", "data.train_size=40", "freeze.reuse_gb=1e-9"]
    with caplog.at_level(logging.INFO):
        trained(encoders, tmp_path / "auto", *small)
    assert "The frozen layers run in every step: its" in caplog.text
    with pytest.raises(UserError, match=r"reuse=on: its .* do not fit"):
        trained(encoders, tmp_path / "on", *small, "freeze.reuse=on")
    with pytest.raises(UserError, match="freezes no layers at the bottom"):
        trained(encoders, tmp_path / "lora", "freeze=lora", "freeze.reuse=on")

"""The main job, by the real scripts: train, evaluate, predict."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Run, only_run

SAMPLES = {
    "emotion_sample": ("distilbert", "accuracy", "i am so happy today"),
    "imdb_sample": ("bert", "accuracy", "A dull film."),
    "conll2003_sample": ("roberta", "f1", "Anna Kowalska of Poland won in Paris ."),
}


@pytest.mark.parametrize("data", SAMPLES)
def test_train_evaluate_predict(data: str, encoders: Callable[[str], Path], script: Run, tmp_path: Path) -> None:
    architecture, score, text = SAMPLES[data]
    trained = script(
        "train.py", f"data={data}", f"model.name={encoders(architecture)}", "data.train_size=64", "data.eval_size=20",
        "data.max_length=32", "trainer.max_epochs=1",
    )  # fmt: skip
    run = only_run(tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    made = json.loads((run / "environment.json").read_text())
    assert made["command"].startswith(f"python train.py data={data} model.name=")
    changed = {key: (value, default) for key, value, default in made["changed"]}
    assert changed["data.train_size"] == ("64", "null")
    assert "data.name" not in changed
    assert "seed" not in changed
    assert f"test/{score}" in metrics
    assert "report.html" in trained.stdout
    for name in ("config.yaml", "environment.json", "data.json", "history.csv", "parameters.json", "report.html"):
        assert (run / name).stat().st_size > 0

    before = (run / "predictions/test.jsonl").read_text()
    evaluated = script("evaluate.py", f"run={run}", f"output={tmp_path}/again.jsonl")
    assert score in evaluated.stdout
    assert (tmp_path / "again.jsonl").read_text() == (run / "predictions/test.jsonl").read_text() == before

    predicted = json.loads(script("predict.py", f"run={run}", f"text={text}").stdout)
    assert predicted["text"] == text
    assert "entities" in predicted if data == "conll2003_sample" else predicted["label"]


def test_scripts_are_thin() -> None:
    scripts = list(ROOT.glob("*.py"))
    assert len(scripts) == 6
    assert all(len(path.read_text().splitlines()) < 40 for path in scripts)

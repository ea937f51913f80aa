"""Metrics that a config adds: of scikit-learn, or of a user's folder ``own/``."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from conftest import Fitted, Run, configured
from thaw.errors import UserError
from thaw.evaluation import evaluate_run
from thaw.files import read_json
from thaw.labels import ALPHABETICAL, LabelSet, order_names
from thaw.metrics.classification import best_thresholds
from thaw.metrics.outputs import Outputs
from thaw.metrics.own import build_metrics, misordered, own_metrics
from thaw.metrics.probabilities import probabilities
from thaw.settings import plain
from thaw.training.trainer import check_monitor, make_callbacks

STARS = LabelSet("sequence", ("1", "2", "3"), (2, 2, 2), rows=6)
TOPICS = LabelSet("multi_label", ("a", "b"), (2, 2), rows=3)
TAGS = LabelSet("token", ("O", "B-X"), (3, 1), rows=2)
F2 = {"_target_": "sklearn.metrics.fbeta_score", "beta": 2, "average": "macro"}


def logits(predicted: Any, labels: int) -> np.ndarray:
    return np.eye(labels, dtype=np.float32)[predicted] * 5


def test_a_chosen_metric_is_that_of_scikit_learn() -> None:
    config = plain(configured("metrics=kappa"))["metrics"]
    gold, predicted = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 1, 2, 1, 1, 2])
    outputs = Outputs(np.arange(6), logits(predicted, 3), gold)
    expected = cohen_kappa_score(gold, predicted, weights="quadratic")
    assert own_metrics(outputs, STARS, build_metrics(config, STARS)) == {"kappa": pytest.approx(expected)}


def test_labels_on_a_scale_in_alphabetical_order_are_told() -> None:
    config = plain(configured("metrics=kappa"))["metrics"]
    names, order = order_names(["low", "medium", "high"], None)
    assert misordered(config, LabelSet("sequence", names, (1, 1, 1), order)) == ["kappa"]
    for values, given in ((["low", "high"], ["low", "high"]), ([1, 2, 3], None)):
        names, order = order_names(values, given)
        assert not misordered(config, LabelSet("sequence", names, (1,) * len(names), order))
    assert not misordered({"f2": F2}, LabelSet("sequence", ("a", "b"), (1, 1), ALPHABETICAL))


def test_several_labels_are_given_as_0_and_1_by_the_thresholds_of_the_run() -> None:
    gold = np.array([[1, 0], [0, 1], [1, 1]])
    outputs = Outputs(np.arange(3), np.array([[1.0, -1.0], [-1.0, -1.0], [1.0, -3.0]], dtype=np.float32), gold)
    metrics = build_metrics({"f2": F2}, TOPICS)
    assert own_metrics(outputs, TOPICS, metrics, [0.5, 0.5]) == {"f2": 0.5}  # b is never predicted
    best = best_thresholds(probabilities(outputs.logits, TOPICS), gold)
    assert own_metrics(outputs, TOPICS, metrics) == own_metrics(outputs, TOPICS, metrics, best) != {"f2": 0.5}


def test_words_are_rows_of_a_token_task() -> None:
    gold = [np.array([0, 1, 0]), np.array([1])]
    outputs = Outputs(np.arange(2), [logits([0, 1], 2), logits([0], 2)], gold, [np.array([0, 1]), np.array([0])])
    (value,) = own_metrics(outputs, TAGS, build_metrics({"f2": F2}, TAGS)).values()
    assert value == pytest.approx(float(np.mean([0.9090909, 0.5555556])))  # by hand; the word without a token is O
    assert f1_score([0, 1, 0, 1], [0, 1, 0, 0], average="macro") != value


def test_a_metric_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/costs.py").write_text("def cost(gold, predicted, miss): return miss * (gold != predicted).sum()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    outputs = Outputs(np.arange(2), logits([0, 1], 3), np.array([0, 2]))
    metrics = build_metrics({"cost": {"_target_": "own.costs.cost", "miss": 3}}, STARS)
    assert own_metrics(outputs, STARS, metrics) == {"cost": 3.0}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("accuracy", F2, "metrics.accuracy: there is such a metric"),
        ("f1/joy", F2, "metrics.f1/joy: a name has no slash"),
        ("ece_calibrated", F2, "there is such a metric"),
        (
            "bad",
            {"_target_": "sklearn.metrics.fbeta_score", "beta": 2},
            r"metrics.bad: ValueError: Target is multiclass.*\(metrics/_classification\.py:\d+\)",
        ),
        (
            "bad",
            {"_target_": "sklearn.metrics.confusion_matrix"},
            "metrics.bad: .* Check its settings: it gets true and predicted ids of sequence labels",
        ),
        (
            "bad",
            {"_target_": "sklearn.metrics.nothing"},
            "metrics.bad: sklearn.metrics.nothing: there is no such class or function",
        ),
    ],
)
def test_a_metric_that_cannot_work_is_told(name: str, config: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_metrics({name: config}, STARS)


def test_a_run_is_picked_by_a_metric_that_the_config_adds(fitted: Fitted) -> None:
    run = fitted("distilbert", "metrics=kappa", "monitor=val/kappa", "data.label_names=null")
    metrics = read_json(run / "metrics.json")
    assert metrics["best"]["score"] == pytest.approx(metrics["validation/kappa"], abs=1e-6)
    assert "val/kappa" in (run / "history.csv").read_text().splitlines()[0]
    _, _, again = evaluate_run({"run": str(run), "split": "test", "output": None, "explain": None, "data": {}})
    assert again["test/kappa"] == pytest.approx(metrics["test/kappa"], abs=1e-6)


def test_of_a_metric_of_ones_own_the_user_says_which_direction_is_better(script: Run) -> None:
    metric = "+metrics.mae={_target_: sklearn.metrics.mean_absolute_error}"
    given = [metric, "monitor=val/mae", "mode=min", "callbacks=early_stopping"]
    assert configured(*given).callbacks.early_stopping.mode == "min"
    done = script("train.py", *given, "data=csv", "data.path=gone.csv", ok=False)
    assert done.stderr == "error: gone.csv: no such file or folder. Check data.path.\n"
    done = script("train.py", metric, "monitor=val/mae", ok=False)
    assert done.stderr == "error: mode=max: val/mae is an error. Give mode=min.\n"
    done = script("train.py", "+metrics.cost={_target_: own.costs.cost}", "monitor=val/cost", ok=False)
    assert done.stderr == "error: monitor=val/cost: is more of it better, or less? Give mode=max or mode=min.\n"


@pytest.mark.parametrize("callback", ["EMAWeightAveraging", "StochasticWeightAveraging"])
def test_averages_of_weights_are_refused_since_no_checkpoint_would_hold_them(callback: str) -> None:
    config = {"_target_": f"pytorch_lightning.callbacks.{callback}"}
    config |= {"swa_lrs": 1e-3} if callback.startswith("S") else {}
    with pytest.raises(UserError, match=f"callbacks.mean: {callback} is not supported"):
        make_callbacks({"mean": config}, partial(check_monitor, STARS, {"1": 2, "2": 2, "3": 2}, []))

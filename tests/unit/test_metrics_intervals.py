"""Intervals and paired tests: the figures of the resamples are the figures, and the answers those of the textbooks."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from thaw.labels import LabelSet
from thaw.metrics.calibration import confidence, expected_calibration_error
from thaw.metrics.intervals import RESAMPLES, group_numbers, intervals, proportion
from thaw.metrics.outputs import Outputs, compute_metrics
from thaw.metrics.paired import mcnemar, paired_bootstrap
from thaw.metrics.probabilities import probabilities
from thaw.metrics.scorers import auc, average_precision, calibration_scorer, scorer
from thaw.models.losses import make_loss, make_terms


def sequence(rows: int, classes: int, seed: int = 0, skill: float = 1.5) -> tuple[Outputs, LabelSet]:
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes)) + skill * np.eye(classes)[gold]
    names = tuple(f"c{i}" for i in range(classes))
    return Outputs(np.arange(rows), logits.astype(np.float32), gold), LabelSet(
        "sequence", names, (rows,) * classes, "", rows
    )


def tokens(names: tuple[str, ...], sentences: int = 80) -> tuple[Outputs, LabelSet]:
    generator = np.random.default_rng(1)
    gold = [generator.choice(len(names), size=generator.integers(1, 12)) for _ in range(sentences)]
    logits = [generator.normal(size=(len(row), len(names))) + 2 * np.eye(len(names))[row] for row in gold]
    words = [np.arange(len(row)) for row in gold]
    return Outputs(np.arange(sentences), logits, gold, words), LabelSet(
        "token", names, (5,) * len(names), "", sentences
    )


def several(absent: bool = False) -> tuple[Outputs, LabelSet]:
    generator = np.random.default_rng(2)
    truth = (generator.random((200, 4)) < 0.3).astype(np.int64)
    logits = generator.normal(size=(200, 4)) + 2 * truth - 1
    if absent:  # of the last label, which is never predicted either
        truth[:, 3], logits[:, 3] = 0, -9
    return Outputs(np.arange(200), logits, truth), LabelSet("multi_label", tuple("abcd"), (60,) * 4, "", 200)


def only_predicted() -> tuple[Outputs, LabelSet]:
    outputs, labels = sequence(120, 5)
    return Outputs(outputs.rows, outputs.logits, outputs.gold % 4), labels


TASKS = {
    "two classes": (*sequence(60, 2), False),
    "five classes": (*sequence(120, 5), False),
    "five classes, one of which is only predicted": (*only_predicted(), False),
    "several labels": (*several(), False),
    "several labels, one of which is absent": (*several(absent=True), False),
    "entities": (*tokens(("O", "B-LOC", "I-LOC", "B-PER", "I-PER")), False),
    "strict entities": (*tokens(("O", "B-LOC", "I-LOC", "B-PER", "I-PER")), True),
    "parts of speech": (*tokens(("NOUN", "VERB", "X")), False),
}


def uneven(found: int) -> tuple[Outputs, LabelSet]:
    """Thirty classes, of which the most frequent are told apart and the others are never found."""
    generator = np.random.default_rng(0)
    share = 1 / np.arange(1, 31) ** 1.3
    gold = np.concatenate([np.arange(30), generator.choice(30, 150, p=share / share.sum())])
    logits = np.eye(30, dtype=np.float32)[np.where(gold < found, gold, 0)]
    return Outputs(np.arange(180), logits, gold), LabelSet("sequence", tuple(map(str, range(30))), (6,) * 30)


@pytest.mark.parametrize("limit", [None, 0.3])
@pytest.mark.parametrize("task", TASKS)
def test_figures_from_weights_are_the_figures(task: str, limit: float | None) -> None:
    outputs, labels, strict = TASKS[task]
    limits = [limit] * len(labels) if limit else None
    whole = scorer(outputs, labels, strict=strict, thresholds=limits)(np.ones((1, len(outputs.rows))))
    known = compute_metrics(outputs, labels, strict=strict, thresholds=limits or [0.5] * len(labels))
    headline = {name for name in known if "/" not in name} - {"ece"}
    assert set(whole) == headline
    assert {name: values[0] for name, values in whole.items()} == pytest.approx(
        {name: known[name] for name in headline}
    )


@pytest.mark.parametrize("task", TASKS)
def test_intervals_hold_the_figure_and_are_the_same_each_time(task: str) -> None:
    outputs, labels, strict = TASKS[task]
    limits = [0.5] * len(labels)
    found = intervals(outputs, labels, strict=strict, thresholds=limits)
    known = compute_metrics(outputs, labels, strict=strict, thresholds=limits)
    logits, gold = outputs.flat()
    known["ece"] = expected_calibration_error(*confidence(probabilities(logits, labels), gold))
    assert found
    for name, (low, high) in found.items():
        assert low - 1e-6 <= known[name] <= high + 1e-6
        assert high - low < 0.6
    assert found["f1"] == found.get("f1_micro") or labels.task != "multi_label"
    again = intervals(outputs, labels, strict=strict, thresholds=limits)
    assert {name: again[name] for name in found} == found


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("task", TASKS)
def test_the_calibration_error_from_weights_is_that_of_torchmetrics(task: str, temperature: float) -> None:
    outputs, labels, _ = TASKS[task]
    (value,) = calibration_scorer(outputs, labels, temperature)(np.ones((1, len(outputs.rows))))
    logits, gold = outputs.flat()
    known = expected_calibration_error(*confidence(probabilities(logits / temperature, labels), gold))
    assert value == pytest.approx(known, abs=1e-6)


def test_what_is_certain_and_wrong_is_a_calibration_error() -> None:
    outputs, labels = sequence(60, 2, skill=0.5)
    certain = Outputs(outputs.rows, outputs.logits * 10_000, outputs.gold)
    (value,) = calibration_scorer(certain, labels)(np.ones((1, 60)))
    assert 0 < value == pytest.approx(1 - compute_metrics(certain, labels)["accuracy"])


@pytest.mark.parametrize(("error", "least"), [(0.1, 34), (0.0, 20)])
def test_the_interval_of_the_calibration_error_holds_the_true_one(error: float, least: int) -> None:
    """Of a network that is too sure by a tenth; nominally in 95 of 100 samples. Of an honest one, in two of three."""
    generator, labels, held = np.random.default_rng(7), LabelSet("sequence", ("a", "b"), (1, 1), "", 2), 0
    for _ in range(40):
        sure = generator.uniform(0.65, 0.95, 250)
        said = generator.integers(0, 2, 250)
        gold = np.where(generator.random(250) < sure - error, said, 1 - said)
        logits = (np.eye(2)[said] * np.log(sure / (1 - sure))[:, None]).astype(np.float32)
        outputs = Outputs(np.arange(250), logits, gold)
        low, high = intervals(outputs, labels)["ece"]
        assert 0 <= low <= calibration_scorer(outputs, labels)(np.ones((1, 250)))[0] <= high
        held += low <= error <= high
    assert held >= least


def test_an_interval_ends_where_the_metric_does() -> None:
    """The macro averages are moved up, since resamples without the rare class score worse."""
    gold, logits = np.repeat([0, 1], [30, 2]), np.eye(2, dtype=np.float32)[[1] + [0] * 29 + [1] * 2]
    found = intervals(Outputs(np.arange(32), logits, gold), LabelSet("sequence", ("a", "b"), (30, 2), "", 32))
    assert found["recall_macro"][1] == 1.0
    assert all(0 <= low < high <= 1 for low, high in found.values())


def test_a_loss_that_resamples_may_not_have_has_no_interval() -> None:
    """Of rows without weight alone there is no mean."""
    outputs, labels = sequence(3, 2)
    outputs = Outputs(outputs.rows, outputs.logits, np.array([0, 0, 1]))
    settings = {"label_smoothing": 0.1, "focal_gamma": 0.0, "class_weights": {"c0": 0.0}}
    assert "loss" not in intervals(outputs, labels, terms=outputs.terms(make_terms(settings, labels)))


def test_nothing_has_no_proportion() -> None:
    assert np.isnan(proportion(0, 0)).all()
    assert proportion(1, 2) == pytest.approx((0.5, 0.0945, 0.9055), abs=1e-4)


def test_rows_without_a_word_are_no_trouble() -> None:
    labels = LabelSet("token", ("O", "B-LOC"), (5, 5), "", 2)
    nothing = np.empty(0, dtype=np.int64)
    outputs = Outputs(np.arange(1), [np.empty((0, 2), dtype=np.float32)], [np.array([0])], [nothing])
    assert "ece" not in intervals(outputs, labels)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weights", [None, "balanced"])
def test_the_interval_of_the_loss_is_about_the_loss(task: str, weights: str | None) -> None:
    outputs, labels, _ = TASKS[task]
    settings = {"label_smoothing": 0.1, "focal_gamma": 1.0, "class_weights": weights}
    low, high = intervals(outputs, labels, terms=outputs.terms(make_terms(settings, labels)))["loss"]
    value = outputs.loss(make_loss(settings, labels))
    assert low < value < high < 1.5 * value


def test_the_interval_of_accuracy_holds_the_true_one_where_classes_are_uneven() -> None:
    """Nominally in 95 of 100 samples. Within classes the rows vary far less than samples do: 80 of 100."""
    generator, labels, held = np.random.default_rng(7), LabelSet("sequence", ("a", "b"), (9, 1), "", 10), 0
    for _ in range(60):
        gold = (generator.random(500) < 0.1).astype(np.int64)
        right = generator.random(500) < np.where(gold == 0, 0.99, 0.3)
        logits = np.eye(2, dtype=np.float32)[np.where(right, gold, 1 - gold)]
        low, high = intervals(Outputs(np.arange(500), logits, gold), labels)["accuracy"]
        held += low <= 0.9 * 0.99 + 0.1 * 0.3 <= high
    assert held >= 54


def test_the_interval_of_macro_f1_holds_it_where_rare_classes_are_never_found() -> None:
    """Resamples without such a class score better, so that their percentiles lay above the figure."""
    outputs, labels = uneven(6)
    known, found = compute_metrics(outputs, labels), intervals(outputs, labels)
    for name in ("f1", "f1_macro", "precision_macro", "recall_macro"):
        low, high = found[name]
        assert low < known[name] < high
    assert found["f1"] == found["f1_macro"]


def test_rows_none_of_which_has_a_label_are_no_trouble() -> None:
    outputs, labels = several()
    found = intervals(Outputs(outputs.rows, outputs.logits, np.zeros_like(outputs.gold)), labels, thresholds=[0.5] * 4)
    assert "map" not in found
    assert found["subset_accuracy"][1] > 0


@pytest.mark.parametrize(
    ("ours", "theirs"), [(auc, roc_auc_score), (average_precision, average_precision_score)], ids=["auc", "ap"]
)
def test_areas_and_their_slopes_are_those_of_scikit_learn(ours: object, theirs: object) -> None:
    generator = np.random.default_rng(3)
    truth = generator.random(60) < 0.4
    scores = np.round(generator.normal(size=60) + truth, 1)  # with ties
    area, slope = ours(truth, scores)  # type: ignore[operator]
    assert area == pytest.approx(theirs(truth, scores))  # type: ignore[operator]
    step = 1e-5
    for row in range(0, 60, 7):
        weights = np.ones(60)
        weights[row] += step
        moved = theirs(truth, scores, sample_weight=weights)  # type: ignore[operator]
        assert slope[row] == pytest.approx((moved - area) / step, abs=1e-5)


def test_one_row_of_a_class_and_one_row_at_all_are_no_trouble() -> None:
    labels = LabelSet("sequence", ("a", "b"), (1, 1), "", 2)
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    found = intervals(Outputs(np.arange(3), logits, np.array([0, 0, 1])), labels)
    assert found["accuracy"] == pytest.approx([0.4385, 1.0], abs=1e-4)
    found = intervals(Outputs(np.arange(1), logits[:1], np.array([0])), labels)
    assert found["accuracy"] == pytest.approx([0.2065, 1.0], abs=1e-4)
    assert "auc" not in found


def test_rows_without_a_mistake_are_no_proof_of_certainty() -> None:
    """Every resample is as good: the interval of a share is Wilson's, of which one of no width would say nothing."""
    outputs, labels = sequence(44, 3, skill=50)
    found = intervals(outputs, labels)
    assert found["accuracy"] == found["recall_weighted"] == pytest.approx([0.9197, 1.0], abs=1e-4)
    assert not {"f1", "precision_macro", "mcc", "auc"} & set(found)
    assert all(low < high for low, high in found.values())
    outputs, labels = sequence(500, 3)
    accuracy = compute_metrics(outputs, labels)["accuracy"]
    low, high = intervals(outputs, labels)["accuracy"]
    spread = 1.96 * (accuracy * (1 - accuracy) / 500) ** 0.5
    assert (low, high) == pytest.approx((accuracy - spread, accuracy + spread), abs=0.004)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    first = np.array([True] * 20 + [False] * 12 + [True] * 3)
    second = np.array([True] * 20 + [True] * 12 + [False] * 3)
    found = mcnemar(first, second)
    assert found == {"only_first": 3, "only_second": 12, "p": stats.binomtest(3, 15).pvalue}
    assert mcnemar(first, first)["p"] == 1.0


def test_paired_bootstrap_sees_a_difference_where_there_is_one() -> None:
    weak, labels = sequence(300, 3, skill=0.5)
    strong = Outputs(weak.rows, weak.logits + 2 * np.eye(3, dtype=np.float32)[weak.gold], weak.gold)
    found = paired_bootstrap(scorer(weak, labels), scorer(strong, labels), 300)
    assert found["accuracy"]["difference"] > 0.1
    assert found["accuracy"]["p"] == pytest.approx(2 / (RESAMPLES + 1))
    assert found["accuracy"]["interval"][0] > 0
    same = paired_bootstrap(scorer(weak, labels), scorer(weak, labels), 300)
    assert same["f1"]["difference"] == 0
    assert same["f1"]["p"] == 1.0


def test_the_interval_of_a_difference_holds_it_where_rare_classes_are_never_found() -> None:
    few, many = uneven(3), uneven(12)
    found = paired_bootstrap(scorer(*few), scorer(*many), 180)
    for name in ("f1", "f1_macro", "recall_macro"):
        low, high = found[name]["interval"]
        assert low < found[name]["difference"] < high
        assert (low + high) / 2 == pytest.approx(found[name]["difference"], abs=0.01)


def test_a_metric_that_some_resamples_lack_is_not_compared() -> None:
    def own(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy": weights[:, 0] / 9, "of_words": weights[:, 0] / weights[:, 0]}

    assert set(paired_bootstrap(own, own, 9)) == {"accuracy"}


def test_rows_of_one_group_are_drawn_together() -> None:
    """Rows that say the same three times tell no more than once."""
    generator = np.random.default_rng(1)
    gold = generator.integers(3, size=60)
    logits = generator.normal(size=(60, 3)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[gold]
    labels = LabelSet("sequence", ("a", "b", "c"), (20, 20, 20), "", 60)
    once = intervals(Outputs(np.arange(60), logits, gold), labels, groups=np.arange(60))
    repeated = Outputs(np.arange(180), np.repeat(logits, 3, axis=0), np.repeat(gold, 3))
    names = [name for i in range(60) for name in (f"customer {i}",) * 3]
    grouped = intervals(repeated, labels, groups=group_numbers(names))
    for name in ("accuracy", "f1_macro", "mcc"):
        assert grouped[name] == pytest.approx(once[name])
    apart = intervals(repeated, labels)
    assert apart["accuracy"][1] - apart["accuracy"][0] < 0.7 * (grouped["accuracy"][1] - grouped["accuracy"][0])


def test_a_row_without_a_group_is_one_of_its_own() -> None:
    assert group_numbers(["a", None, "b", "a", None]).tolist() == [0, 1, 2, 0, 3]  # type: ignore[union-attr]
    assert group_numbers([None, None]) is None
    assert group_numbers([]) is None

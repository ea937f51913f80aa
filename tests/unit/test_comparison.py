"""Two runs on the same rows: what is taken for the same, what only one has right, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import configured
from thaw import files, runs
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.reporting.comparison import FLIPS, compare, different, figure_rows, p_value, report

Make = Callable[..., Path]
LABELS = LabelSet("sequence", ("no", "yes"), (5, 5), rows=10)
SEVERAL = LabelSet("multi_label", ("a", "b", "c"), (5, 5, 5), rows=10)
ENTITIES = LabelSet("token", ("O", "B-LOC", "I-LOC"), (5, 5, 5), rows=10)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that writes a finished run with its predictions, as far as a comparison reads it."""

    def run(name: str, labels: LabelSet, rows: list[dict[str, Any]], *overrides: str) -> Path:
        folder = tmp_path / name
        runs.save_config(folder, configured(*overrides))
        files.write_json(folder / "labels.json", labels.to_dict())
        files.write_json(folder / "environment.json", {"command": f"python train.py {name}"})
        files.write_json(folder / "metrics.json", {"trainable": 1, "parameters": 2, "seconds": {"train": 3.0}})
        files.write_jsonl(folder / "predictions/test.jsonl", rows)
        return folder

    return run


def row(number: int, true: str, yes: float) -> dict[str, Any]:
    said = {"no": 1 - yes, "yes": yes}
    return {"text": f"text {number}", "label": true, "predicted": max(said, key=said.__getitem__),
            "probabilities": said}  # fmt: skip


def several(number: int, true: list[str], given: list[str]) -> dict[str, Any]:
    scores = {name: 0.9 if name in given else 0.1 for name in SEVERAL.names}
    return {"text": f"text {number}", "label": true, "predicted": given, "probabilities": scores}


def sentence(true: str, predicted: str) -> dict[str, Any]:
    return {"words": ["in", "New", "York"], "label": true.split(), "predicted": predicted.split()}


def test_the_names_of_two_runs_may_be_in_another_order(make: Make) -> None:
    swapped = LabelSet("sequence", ("yes", "no"), (5, 5), rows=10)
    first = make("first", LABELS, [row(i, "yes" if i % 2 else "no", 0.2) for i in range(20)])
    second = make("second", swapped, [row(i, "yes" if i % 2 else "no", 0.9 if i % 2 else 0.1) for i in range(20)])
    found = compare(first, second, "test")
    assert found["figures"]["accuracy"]["difference"] == 0.5
    assert found["figures"]["accuracy"]["p"] < 0.05
    assert (found["test"]["only_first"], found["test"]["only_second"]) == (0, 10)
    assert found["findings"] == [
        "Right in the first run alone: 0 rows; in the second alone: 10.", "McNemar's exact test: p = 0.002. So few "
        "rows differ that it is to be preferred to the resampled p of accuracy.",
    ]  # fmt: skip
    flip = found["flips"][0]
    assert (flip["row"], flip["better"], flip["true"], flip["predicted"]) == (2, "second", "yes", ["no", "yes"])
    assert [run["seconds"] for run in found["runs"]] == [3.0, 3.0]


def test_many_changed_rows_are_counted_and_some_of_them_shown(make: Make) -> None:
    size = FLIPS + 20
    good, bad = ([row(i, "yes", yes) for i in range(size)] for yes in (0.9, 0.1))
    found = compare(make("good", LABELS, good), make("bad", LABELS, bad), "test")
    assert (found["flipped"], len(found["flips"])) == (size, FLIPS)
    assert {flip["better"] for flip in found["flips"]} == {"first"}
    assert found["findings"][1] == "McNemar's exact test: p < 0.001."
    assert {cells[0]: cells[-1] for cells in figure_rows(found)}["accuracy"] == "≤ 0.002", "of 1,000 resamples"


def test_groups_that_one_of_two_runs_tells_are_those_of_both(make: Make) -> None:
    """As where the column of groups was named in one of two commands."""
    rows = [row(i, "yes" if i % 2 else "no", 0.2 + 0.01 * i) for i in range(40)]
    plain = make("plain", LABELS, rows)
    grouped = make("grouped", LABELS, [{**own, "group": f"g{i // 8}", "predicted": "no"} for i, own in enumerate(rows)])
    found = [compare(*pair, "test") for pair in ((plain, grouped), (grouped, plain))]
    assert [one["grouped"] for one in found] == [True, True]
    assert [one["test"] for one in found] == [None, None], "McNemar's test takes rows to be independent"
    (low, high), other = (one["figures"]["accuracy"]["interval"] for one in found)
    assert other == pytest.approx([-high, -low])


def test_runs_with_several_labels_are_compared_by_whole_rows(make: Make) -> None:
    first = make("first", SEVERAL, [several(0, ["a", "b"], ["a", "b"]), several(1, ["c"], [])])
    second = make("second", SEVERAL, [several(0, ["b", "a"], ["a"]), several(1, ["c"], [])])
    found = compare(first, second, "test")
    assert found["test"] is None, "McNemar's test is of one label a row"
    assert found["figures"]["subset_accuracy"]["difference"] == -0.5
    assert [(flip["row"], flip["better"], flip["predicted"]) for flip in found["flips"]] == [
        (1, "first", ["a, b", "a"])
    ]
    assert found["findings"] == ["Right in the first run alone: 1 row; in the second alone: 0."]


def test_two_runs_are_told_apart_by_their_settings(make: Make) -> None:
    """Not by where their rows stand, or what follows from the rest; what a strategy alone has is told as well."""
    rows = [row(0, "no", 0.1), row(1, "no", 0.9)]
    full = make("full", LABELS, rows, "data.train_size=100", "data.path=a")
    own = ["freeze=all_but_last_n", "freeze.n=2", "data.epochs=9", "data.path=b", "logger=tensorboard"]
    head = make("head", LABELS, rows, *own)
    seed = make("seed", LABELS, rows, "data.train_size=100", "data.path=c", "seed=7")
    assert compare(full, head, "test")["findings"][2:] == [
        "Settings that differ (first, second): data.train_size (100, null), data.epochs (5, 9), freeze (none, "
        "all_but_last_n), freeze.n (null, 2).",
        "One run each: a difference may also be due to the seed.",
    ]
    assert compare(full, seed, "test")["findings"][2:] == ["Settings that differ (first, second): seed (42, 7)."]


@pytest.mark.parametrize(("strict", "difference"), [(False, 0.0), (True, 1.0)])
def test_runs_of_entities_are_compared_as_strictly_as_they_were_scored(
    strict: bool, difference: float, make: Make
) -> None:
    first = make("first", ENTITIES, [sentence("O B-LOC I-LOC", "O I-LOC I-LOC")], f"strict_iob2={strict}")
    second = make("second", ENTITIES, [sentence("O B-LOC I-LOC", "O B-LOC I-LOC")], f"strict_iob2={strict}")
    found = compare(first, second, "test")
    assert found["figures"]["f1"]["difference"] == difference
    assert (found["unit"], found["rows"], found["test"]) == ("sentences", 1, None)
    assert found["findings"] == ["Right in the first run alone: 0 whole sentences; in the second alone: 1."]
    (flip,) = found["flips"]
    assert flip["better"] == "second"
    assert "".join(part["text"] for part in flip["sides"][0]["parts"]).replace(" ", "") == "inNewYork"


OTHER = LabelSet("sequence", ("no", "maybe"), (5, 5), rows=10)


@pytest.mark.parametrize(
    ("labels", "rows", "said"),
    [
        (OTHER, [row(0, "no", 0.1), row(1, "no", 0.1)], "the labels differ: maybe, yes in one only"),
        (LABELS, [row(0, "no", 0.1)], "2 rows against 1, 1 and 0 of them in one only"),
        (LABELS, [row(0, "no", 0.1), row(7, "no", 0.1), row(7, "no", 0.1)], "2 rows against 3, 1 and 2 of them in one"),
        (LABELS, [row(0, "no", 0.1), row(2, "no", 0.1)], "1 of 2 texts differ, first in row 2"),
        (LABELS, [row(1, "no", 0.1), row(0, "no", 0.1)], "the texts are the same, in another order"),
        (LABELS, [row(0, "no", 0.1), row(1, "yes", 0.1)], "the true labels of 1 rows differ, first in row 2"),
        (LABELS, [row(0, "no", 0.9), row(1, "no", 0.9)], ""),
    ],
)
def test_how_the_rows_of_two_runs_differ_is_told(labels: LabelSet, rows: list[dict[str, Any]], said: str) -> None:
    own = [row(0, "no", 0.1), row(1, "no", 0.1)]
    found = different([LABELS, labels], [own, rows])
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_runs_on_other_rows_are_not_compared(make: Make) -> None:
    first = make("first", LABELS, [row(0, "no", 0.1), row(1, "no", 0.1)])
    second = make("second", LABELS, [row(0, "no", 0.1), row(2, "no", 0.1)])
    with pytest.raises(UserError, match="second were not scored on the same rows: 1 of 2 texts differ, first in row 2"):
        compare(first, second, "test")


def test_the_order_of_tags_is_no_matter_of_taste() -> None:
    """As that of several labels of a text is."""
    one, other = several(0, ["a", "b"], []), several(0, ["b", "a"], [])
    assert different([SEVERAL] * 2, [[one], [other]]) == ""
    one, other = sentence("O B-LOC O", "O O O"), sentence("B-LOC O O", "O O O")
    assert "true labels" in different([ENTITIES] * 2, [[one], [other]])


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("{0},{0}", "is given twice"),
        ("{0},{0}/", "is given twice"),
        ("{0},{0},{0}", "is given twice"),
        ("{0},", "2 runs given"),
    ],
)
def test_a_comparison_takes_two_runs(listed: str, said: str, make: Make) -> None:
    own = make("one", LABELS, [row(0, "no", 0.1)])
    with pytest.raises(UserError, match=said):
        report(configured(f"runs='{listed.format(own)}'", verb="report"))


def test_small_probabilities_are_said_to_be_small() -> None:
    assert (p_value(0.0009), p_value(0.001), p_value(1.0)) == ("< 0.001", "0.001", "1.000")

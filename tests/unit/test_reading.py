"""What pages and the terminal say of rows and data."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thaw.data.corrections import read_corrections
from thaw.files import read_jsonl
from thaw.labels import LabelSet
from thaw.metrics.baselines import UNTRAINED
from thaw.metrics.outputs import Outputs, compute_metrics
from thaw.reporting.advice import left_out, notes, of_run
from thaw.reporting.folds import OutOfFold, delimiter_of_data, in_order, write
from thaw.reporting.predictions import label_pairs, scorer_of
from thaw.reporting.reading import marked_parts, suspects, suspicious
from thaw.scoring import prediction_rows

ENTITIES = LabelSet("token", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), (1,) * 5)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ("B-PER I-PER O", "B-PER I-PER O", [("Ann Lee", "right", "PER"), ("won", "", "")]),
        ("B-PER I-PER O", "B-PER B-PER O", [("Ann", "wrong", "PER, wrong boundary"),
                                            ("Lee", "wrong", "PER, wrong boundary"), ("won", "", "")]),
        ("B-PER I-PER O", "B-PER O O", [("Ann", "wrong", "PER, wrong boundary"), ("Lee", "wrong", "PER → O"),
                                        ("won", "", "")]),
        ("B-PER B-PER O", "B-LOC B-PER O", [("Ann", "wrong", "PER → LOC"), ("Lee", "right", "PER"), ("won", "", "")]),
    ],
)  # fmt: skip
def test_a_word_is_right_when_its_whole_entity_is(
    true: str, predicted: str, expected: list[tuple[str, str, str]]
) -> None:
    row = {"words": ["Ann", "Lee", "won"], "label": true.split(), "predicted": predicted.split()}
    assert [(part["text"], part["kind"], part["label"]) for part in marked_parts(row, ENTITIES)] == expected


def doubts(
    folder: Path, labels: LabelSet, rows: list[dict[str, Any]], unseen: dict[int, set[str]] | None = None
) -> list[dict[str, str]]:
    write(folder, OutOfFold(rows, labels, {}, {}, unseen or {}))
    assert read_jsonl(folder / "out_of_fold.jsonl") == rows
    with (folder / "label_errors.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_lone_carriage_return_in_a_doubtful_text_is_read_again_as_a_correction(tmp_path: Path) -> None:
    labels = LabelSet("sequence", ("no", "yes"), (5, 5))
    rows = [{"place": f"a.csv:{i}", "text": f"one\r{i}", "label": "no", "predicted": "no",
             "probabilities": {"no": p, "yes": 1 - p}} for i, p in enumerate((0.05, 0.9, 0.8))]  # fmt: skip
    rows.append({**rows[0], "place": "a.csv:9", "label": "yes", "predicted": "yes"})
    assert doubts(tmp_path, labels, rows)
    assert read_corrections(str(tmp_path / "label_errors.csv"))["a.csv:0"].text == "one\r0"


def test_label_errors_have_a_delimiter_that_is_recognised(tmp_path: Path) -> None:
    """A line that states one, which only Excel needs, would not stand in them."""
    path = tmp_path / "a.csv"
    for content, delimiter in (("sep=^\ntext^label\na^b\n", ","), ("text;label\na,b;c\n", ";")):
        path.write_text(content)
        assert delimiter_of_data({"path": str(path)}) == delimiter


def test_likely_label_errors_of_all_folds_are_listed_with_their_place(tmp_path: Path) -> None:
    labels = LabelSet("sequence", ("no", "yes"), (5, 5))
    given = [("no", 0.1), ("yes", 0.9), ("no", 0.2), ("yes", 0.8), ("no", 0.95)]
    rows = [{"place": f"a.csv:{i}", "text": f"text {i}", "label": own, "predicted": "yes" if p > 0.5 else "no",
             "probabilities": {"no": 1 - p, "yes": p}} for i, (own, p) in enumerate(given)]  # fmt: skip
    assert doubts(tmp_path, labels, rows) == [
        {"place": "a.csv:4", "label": "no", "suggested": "yes", "label_probability": "0.0500",
         "suggested_probability": "0.9500", "text": "text 4"},
    ]  # fmt: skip
    folded = [{**row, "fold": 1} for row in rows]
    assert doubts(tmp_path, labels, folded, {1: {"yes"}, 2: {"no"}})
    assert not doubts(tmp_path, labels, folded, {1: {"no"}}), "the run knew of no such label"
    several = LabelSet("multi_label", ("no", "yes"), (5, 5))
    listed = [{**row, "label": [row["label"]], "predicted": [row["predicted"]]} for row in rows]
    found = doubts(tmp_path, several, listed)
    assert [(one["place"], one["label"], one["suggested"]) for one in found] == [
        ("a.csv:4", "no", "without no"), ("a.csv:4", "without yes", "yes"),
    ]  # fmt: skip
    (shown,) = suspicious(suspects(listed, several), listed, several)["rows"]
    assert shown["note"] == "no 0.050, without no 0.950; without yes 0.050, yes 0.950"
    words = {"words": ["Ann", "in", "Rome"], "true_scores": [0.9, 0.9, 0.1], "scores": [0.9, 0.9, 0.9]}
    rome = {"place": "b.conll:9", **words, "label": ["B-PER", "O", "O"], "predicted": ["B-PER", "O", "B-LOC"]}
    right = {"place": "b.conll:5", **words, "label": ["B-PER", "O", "B-LOC"], "predicted": ["B-PER", "O", "B-LOC"],
             "true_scores": [0.9] * 3}  # fmt: skip
    assert doubts(tmp_path, ENTITIES, [right, rome]) == [
        {"place": "b.conll:9", "word": "Rome", "label": "O", "suggested": "B-LOC", "label_probability": "0.1000",
         "suggested_probability": "0.9000", "text": "Ann in Rome"},
    ]  # fmt: skip


def test_the_page_shows_and_counts_the_label_errors_of_labels_that_the_run_knew(tmp_path: Path) -> None:
    labels = LabelSet("sequence", ("no", "yes", "so"), (20, 20, 20))

    def row(label: str, fold: int, place: int, **scores: float) -> dict[str, Any]:
        best = max(scores, key=scores.__getitem__)
        return {"place": f"a.csv:{place}", "text": "text", "label": label, "predicted": best,
                "probabilities": {"no": 0.0, "yes": 0.0, "so": 0.0, **scores}, "fold": fold}  # fmt: skip

    rows = [*(row(name, 1, i, **{name: 0.8, "so": 0.2}) for i in range(10) for name in ("no", "yes")),
            *(row("so", 2, i, yes=0.99, so=0.01) for i in range(12)),
            *(row("no", 1, 100 + i, yes=0.9, no=0.1) for i in range(3))]  # fmt: skip
    own = write(tmp_path, OutOfFold(rows, labels, {}, {}, {2: {"so"}}))
    assert own["errors"] == 3
    assert own["reading"]["about"].startswith("3 found by confident learning")
    assert [one["place"] for one in own["reading"]["rows"]] == ["a.csv:100", "a.csv:101", "a.csv:102"]
    assert own["reading"]["rows"][0]["note"] == "no 0.100, yes 0.900"


def test_words_that_were_cut_off_are_in_no_pair() -> None:
    row = {"label": ["O", "B-LOC"], "predicted": ["O", "O"], "scores": [0.9, None]}
    assert label_pairs([row], ENTITIES) == [("O", "O")]


def test_places_go_by_their_numbers() -> None:
    places = ["a.csv:10", "a.csv:9", "pos/2_7.txt", "pos/10_1.txt", "b²/1.txt:3"]
    assert sorted(places, key=in_order) == ["a.csv:9", "a.csv:10", "b²/1.txt:3", "pos/2_7.txt", "pos/10_1.txt"]


def data_of(counts: dict[str, dict[str, int]], task: str = "sequence", **shared: Any) -> dict[str, Any]:
    splits = {name: {"labels": own} for name, own in counts.items()}
    splits = {name: {"rows": sum(own["labels"].values()), **own} for name, own in splits.items()}
    known = {"files": {}, "fold": None, "shared": []}
    return {"task": task, "labels": list(counts["train"]), "splits": splits, **known, **shared}


def test_that_the_end_of_many_texts_is_not_read_is_told() -> None:
    data = data_of({"train": {"a": 1, "b": 1}}, truncation="end")
    data["splits"]["train"]["truncated"] = 0.25
    said = "the end of 25% of the training texts is not read: data.truncation=middle or windows reads it"
    assert notes(data) == [said]
    assert not notes({**data, "truncation": "middle"})
    data["splits"]["train"]["truncated"] = 0.05
    assert not notes(data)


@pytest.mark.parametrize(("html", "pieces", "said"), [
    (0.12, 1.2, ["HTML in 12% of the training texts: data.clean_html=true drops tags and resolves entities"]),
    (0.001, 2.4, ["2.4 tokens for each word: does the encoder know the language of these texts? model=xlm_roberta and "
                  "model=bert_multilingual know a hundred"]),
    (0.0, 12.0, []),  # a language without blanks
])  # fmt: skip
def test_html_and_a_foreign_language_are_noted(html: float, pieces: float, said: list[str]) -> None:
    assert notes(data_of({"train": {"a": 1, "b": 1}}, html=html, tokens_per_word=pieces)) == said


def test_of_a_single_file_with_few_rows_cross_validation_is_named() -> None:
    few, many = ({name: {"a": rows} for name in ("train", "test")} for rows in (75, 500))
    assert notes(data_of(few, files={"all": ["a.csv"]})) == ["75 rows of test: sweep=folds tests on every row in turn"]
    assert not notes(data_of(many, files={"all": ["a.csv"]}))
    assert not notes(data_of(few, files={"all": ["a.csv"]}, fold=1))
    assert not notes(data_of(few, files={"train": ["train.csv"], "test": ["test.csv"]}))


def test_what_is_odd_about_the_data_is_noted() -> None:
    train = {"Billing": 1, "billing": 5, "bill ing": 1, "other": 2}
    found = notes(
        data_of(
            {"train": train, "validation": {"billing": 1, "Billing": 0, "bill ing": 0, "other": 1}},
            shared=[{"in": "validation", "also_in": "train", "rows": 1_200}],
        )
    )
    assert found == [
        "texts of validation that are also in train: 1,200",
        "labels that differ only in case or blanks: billing and Billing and bill ing; "
        "'data.label_map={Billing: billing, bill ing: billing}' joins them",
        "labels without a row in validation: Billing, bill ing",
    ]


@pytest.mark.parametrize(
    ("task", "train", "said"),
    [
        ("token", {"O": 9, "B-PER": 5, "I-PER": 1, "B-Per": 2, "I-Per": 0},
         "PER and Per; 'data.label_map={Per: PER}' joins them"),
        ("sequence", {"Q&A": 3, "q&a": 2}, "Q&A and q&a; data.label_map joins them"),
        ("sequence", {"true": 3, "True": 2}, "true and True; data.label_map joins them"),
    ],
)  # fmt: skip
def test_labels_that_differ_in_case_are_joined_by_a_command_that_can_be_typed(
    task: str, train: dict[str, int], said: str
) -> None:
    assert notes(data_of({"train": train}, task))[0] == f"labels that differ only in case or blanks: {said}"


def test_labels_that_may_stand_for_a_missing_one_are_noted() -> None:
    found = notes(data_of({"train": {"NaN": 3, "None": 1, "none": 2, "other": 2}}))
    assert "labels that may stand for a missing one: NaN, None" in found


def test_many_names_are_counted_and_tags_may_be_absent() -> None:
    names = [f"label {i}" for i in range(9)]
    train = dict.fromkeys(names, 1)
    assert notes(data_of({"train": train, "test": dict.fromkeys(names, 0)})) == [
        "labels without a row in test: label 0, label 1, label 2, label 3, label 4 and 4 more"
    ]
    assert not notes(data_of({"train": train, "test": dict.fromkeys(names, 0)}, "token"))


def test_entity_types_that_a_split_lacks_are_noted() -> None:
    train, test = {"O": 9, "B-X": 3, "I-X": 0, "B-Y": 0, "I-Y": 0}, {"O": 9, "B-X": 0, "I-X": 0, "B-Y": 1, "I-Y": 2}
    assert notes(data_of({"train": train, "test": test}, "token")) == [
        "types without a word in train: Y",
        "types without a word in test: X",
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["O", "B-X", "I-X"], []),
        (["NOUN", "VERB"], []),
        (
            ["O", "ERROR", "B-X", "I-X"],
            ["tags that are neither O nor begin with B- or I-, and so mark no entity: ERROR"],
        ),
        (["0", "1"], ["the tags are numbers and mark no entities; their names: data.label_names=[O,B-PER,I-PER,...]"]),
    ],
)
def test_odd_tags_are_noted(names: list[str], said: list[str]) -> None:
    assert notes(data_of({"train": dict.fromkeys(names, 1)}, "token")) == said


def test_a_column_that_hardly_holds_one_label_of_a_few_is_noted() -> None:
    names = {"bug": 5, "crash": 5, "bug|crash": 2, "crash | bug": 1, "salt, pepper": 3}
    assert notes(data_of({"train": names})) == [
        'labels made of other labels: bug|crash, crash | bug; if texts have several, set data.label_separator="|"'
    ]
    dates = {f"2026-01-{day:02}": 2 for day in range(1, 31)}
    assert notes(data_of({"train": dates})) == ["30 labels in 60 rows of train: is data.label_column the right one?"]
    assert not notes(data_of({"train": dict.fromkeys(dates, 5)}))
    assert not notes(data_of({"train": {"a": 1, "b": 2}})), "what is tried out on a few rows"


def test_a_separator_that_no_label_holds_is_noted() -> None:
    splits = {"train": {"labels": {"a": 2, "b": 1}, "rows": 4, "unlabelled": 1}}
    data = {"task": "multi_label", "labels": ["a", "b"], "splits": splits, "shared": [], "files": {}}
    assert notes(data) == [
        "no text has more than one label: train with data.task=sequence, unless data.label_separator is wrong"
    ]
    splits["train"]["labels"]["a"] = 3
    assert not notes(data)


def test_a_run_that_a_bag_of_words_beats_is_told_what_to_try() -> None:
    metrics = {
        "test/f1": 0.4, "test/recall/a": 0.5, "test/recall/b": 0.0, "test/recall/c": 0.0,
        "baselines": {"test": {"majority": {"f1": 0.2}, "TF-IDF": {"f1": 0.61}, "before": {"f1": None}}},
    }  # fmt: skip
    counts = {"a": 5, "b": 2, "c": 0}
    rows: dict[str, Any] = {"splits": {"train": {"labels": {"a": 5, "b": 5, "c": 5}}}}
    assert of_run(metrics, "test", counts, rows) == [
        "TF-IDF has the higher F1 (0.610, this run 0.400). More data.epochs or another optimizer.lr may help.",
        "Not measured, since no row of test has them: c.",
        "Never found: b. More data.epochs, another optimizer.lr, or loss=balanced may help.",
    ]
    better: dict[str, Any] = {**metrics, "test/f1": 0.7, "test/recall/b": 0.1}
    every = {**counts, "c": 1}
    better["test/recall/c"] = 0.1
    assert not of_run(better, "test", every, rows)
    better["baselines"]["test"]["TF-IDF"]["f1_ahead"] = [-0.01, 0.19]
    assert of_run(better, "test", every, rows) == [
        "TF-IDF comes close in F1 (0.610, this run 0.700; the difference, -0.010 to +0.190, may be chance). More "
        "data.epochs or another optimizer.lr may help."
    ]
    tied = {"TF-IDF": {"f1": 0.7, "f1_ahead": [-0.1, 0.1]}, UNTRAINED: {"f1": 0.7, "f1_ahead": [0.0, 0.0]}}
    assert of_run({**better, "baselines": {"test": tied}}, "test", every, rows) == [
        "before training does as well in F1 (0.700, this run 0.700). More data.epochs or another optimizer.lr may help."
    ]
    better["baselines"]["test"]["TF-IDF"]["f1_ahead"] = [0.01, 0.17]
    assert not of_run(better, "test", every, rows)
    rows["splits"]["train"]["labels"] = {"a": 5, "b": 0}
    assert "Not to be found, since no row of train has them: b." in of_run(metrics, "test", counts, rows)
    rows["splits"]["train"]["labels"] = {"O": 9, "B-a": 5, "B-b": 0, "I-b": 2}
    assert not any("Not to be found" in line for line in of_run(metrics, "test", counts, rows))


@pytest.mark.parametrize(
    ("baseline", "truncated", "said"),
    [
        ("TF-IDF, logistic regression", 0.342, True),
        ("TF-IDF, logistic regression", 0.02, False),
        ("majority class", 0.342, False),  # it reads no text at all
    ],
)
def test_where_texts_are_truncated_a_longer_maximum_is_advised(baseline: str, truncated: float, said: bool) -> None:
    metrics = {"test/f1": 0.4, "baselines": {"test": {baseline: {"f1": 0.61}}}}
    data = {"splits": {"train": {"truncated": truncated}}}
    (line,) = of_run(metrics, "test", {}, data)
    assert ("or a larger data.max_length" in line and "34% of the training rows are truncated." in line) == said


@pytest.mark.parametrize(
    ("plain", "scaled", "said"),
    [
        ([0.01, 0.05], [0.2, 0.3], True),
        ([0.01, 0.05], [0.04, 0.3], False),  # the intervals overlap: it may be chance
        ([0.2, 0.3], [0.01, 0.05], False),
        (None, [0.2, 0.3], False),  # all resamples were the same
    ],
)
def test_a_temperature_that_does_harm_is_told(plain: list[float] | None, scaled: list[float], said: bool) -> None:
    pairs = {"test/ece": plain, "test/ece_calibrated": scaled} if plain else {"test/ece_calibrated": scaled}
    metrics = {"test/f1": 0.8, "test/ece": 0.02, "test/ece_calibrated": 0.28, "intervals": pairs, "baselines": {}}
    lines = [
        "The temperature, fitted on validation, raises the calibration error of test from 0.020 to 0.280: leave "
        "calibrated=true out, unless your texts are more like those of validation."
    ]
    assert of_run(metrics, "test", {}, {"splits": {"train": {}}}) == (lines if said else [])


def test_what_a_run_keeps_of_its_rows_gives_the_figures_of_its_metrics() -> None:
    """Also where all rows are told nearly the same: `report.py` compares runs by their predictions."""
    generator = np.random.default_rng(0)
    labels = LabelSet("sequence", ("joy", "anger", "fear"), (1, 1, 1), rows=3)
    gold = generator.integers(3, size=500)
    outputs = Outputs(np.arange(500), generator.normal(0, 2e-3, (500, 3)) + 2e-3 * np.eye(3)[gold], gold)
    predictor: Any = SimpleNamespace(labels=labels, chosen=lambda own: labels.names[own.argmax()])
    rows = list(prediction_rows(predictor, outputs, [""] * 500))
    again = scorer_of(labels, rows, False)(np.ones((1, 500)))
    expected = compute_metrics(outputs, labels)
    assert {name: value for name, (value,) in again.items()} == pytest.approx(
        {name: expected[name] for name in again}, abs=1e-6
    )


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_label_that_is_given_far_too_often_is_named(absent: float | None) -> None:
    """As the threshold with the best F1 gives a rare one, where the run hardly tells it from the others."""
    metrics = {
        "test/f1": 0.8, "test/recall/fraud": 1.0, "test/precision/fraud": 1 / 33, "test/recall/legal": 0.5,
        "test/precision/legal": 0.25, "test/recall/absent": absent, "test/precision/absent": absent, "baselines": {},
    }  # fmt: skip
    data = {"splits": {"train": {"labels": {}}}}
    assert of_run(metrics, "test", {"fraud": 1, "legal": 4, "absent": 0}, data) == [
        "Not measured, since no row of test has them: absent.",
        "Given far too often: fraud (33 for 1). More data.epochs, or more rows with them, may help.",
    ]


def test_rows_that_were_left_out_and_are_not_listed_are_counted() -> None:
    assert left_out({"skipped": {"train": 1_200, "test": 2}, "skipped_rows": ["a.csv:7: no label"]}) == [
        "a.csv:7: no label", "1,201 more rows",
    ]  # fmt: skip
    assert left_out({"skipped": {"all": 1}, "skipped_rows": ["a.csv:7: no label"]}) == ["a.csv:7: no label"]
    assert not left_out({"skipped": {}, "skipped_rows": []})

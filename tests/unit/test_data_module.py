"""From the config to labels, splits and batches: what `TextDataModule` makes of a user's data."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml

from conftest import ROOT, configured
from thaw.data import module
from thaw.data.module import TextDataModule, load_labelled, prepared
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.models.encoder import load_tokenizer
from thaw.new_rows import new_rows
from thaw.reporting.advice import notes

DEFAULTS = yaml.safe_load((ROOT / "conf" / "data" / "_data.yaml").read_text())
Prepare = Callable[..., TextDataModule]


@pytest.fixture
def prepare(encoders: Callable[[str], Path]) -> Prepare:
    """A function that prepares the data of a path as ``train.py data.path=...`` does."""

    def prepared(path: Path, max_length: int = 64, seed: int = 1, **data: Any) -> TextDataModule:
        settings = {**DEFAULTS, "path": str(path), **data}
        done = TextDataModule(settings, lambda task: load_tokenizer(encoders("bert"), task), max_length, seed)
        done.prepare()
        return done

    return prepared


def csv(path: Path, rows: int, labels: str = "joy anger fear", start: int = 0) -> Path:
    names = labels.split()
    lines = [f"text {i},{names[i % len(names)]}\n" for i in range(start, start + rows)]
    path.write_text("text,label\n" + "".join(lines))
    return path


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labelled(*labels: Any) -> list[dict[str, Any]]:
    """Rows with these labels, over and over."""
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels * 10)]


@pytest.mark.parametrize(
    ("rows", "options", "what"),
    [
        ([{"text": ["a", "b"], "label": ["O", "B-X"]}] * 10, {}, "tagged words"),
        ([{"a": f"x{i}", "b": "y", "label": "no" if i % 2 else "yes"} for i in range(20)],
         {"text_column": ["a", "b"]}, "pairs of texts"),
    ],
)  # fmt: skip
def test_only_single_texts_are_cut_elsewhere_than_at_the_end(
    tmp_path: Path, prepare: Prepare, rows: list[Any], options: dict[str, Any], what: str
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", *rows)
    with pytest.raises(UserError, match=f"data.truncation=middle is for single texts, and these are {what}"):
        prepare(path, truncation="middle", **options)


def texts(data: TextDataModule, split: str) -> list[str]:
    return list(data.rows[split]["text"])


# Splits and subsets


def test_a_sample_of_texts_tells_html_and_the_tokens_for_each_word(prepare: Prepare, tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl", *[{**row, "text": f"<b>text</b> {i}"} for i, row in enumerate(labelled("a", "b"))]
    )
    assert prepare(path).summary["html"] == 1
    assert prepare(path, clean_html=True).summary["html"] == 0
    data = prepare(csv(tmp_path / "a.csv", 30))
    assert data.summary["html"] == 0
    words, tokens = 2 * len(data.rows["train"]), data.encoded["train"].lengths.sum() - 2 * len(data.rows["train"])
    assert data.summary["tokens_per_word"] == round(tokens / words, 2)


def test_labels_are_joined_renamed_and_left_out(
    prepare: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv(tmp_path / "a.csv", 100, "joy Joy anger spam 4.0")
    names = {"Joy": "joy", "anger": "cross", "spam": None, 4: "four"}
    data = prepare(path, label_map=names)
    assert data.labels.names == ("cross", "four", "joy")
    assert sum(sum(split["labels"].values()) for split in data.summary["splits"].values()) == 80
    assert data.summary["skipped"] == {"all": 20}
    assert data.summary["skipped_rows"][0].endswith("a.csv:5: data.label_map leaves out 'spam'")
    new = csv(tmp_path / "new.csv", 5, "Joy joy cross anger spam")
    found = load_labelled({**data.data, "path": str(new)}, data.labels, "test")
    assert found[1] == [2, 2, 0, 0], "under old names and new"
    assert found[3] == [f"{new}:6: data.label_map leaves out 'spam'"]
    with pytest.raises(UserError, match=r"'joy' is a new name and an old one\. Give each label its last name"):
        prepare(path, label_map={"Joy": "joy", "joy": "glad"})
    with pytest.raises(UserError, match=r"data\.label_map: no row has the label 'angre'\. Did you mean 'anger'\?"):
        prepare(path, label_map={"angre": None})
    assert prepare(path, label_map={"Spam": "spam", "Anger": "anger"}).labels.names == (
        "4",
        "Joy",
        "anger",
        "joy",
        "spam",
    )
    assert "note: data.label_map: no row has the label 'Spam'" in caplog.messages
    stars = csv(tmp_path / "stars.csv", 60, "3_stars 5_stars bad")
    assert prepare(stars, label_map={"4_stars": "good", "5_stars": "good"}).labels.names == ("3_stars", "bad", "good")


CORRECTED = (
    "\ufeffplace;label;suggested;text\na.csv:2;anger;anger;text 0\na.csv:3;;x;text  1\na.csv:4;fear;joy;text 2\n"
)


def test_corrected_labels_count(prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 60)
    (tmp_path / "errors.csv").write_text(CORRECTED)
    data = prepare(path, corrections=str(tmp_path / "errors.csv"))
    rows = [row for split in data.rows.values() for row in split]
    found = {row["line"]: data.labels.names[row["label"]] for row in rows}
    assert (len(found), found[2], found[4], found[5]) == (59, "anger", "fear", "joy")
    assert data.summary["skipped_rows"] == [f"{path}:3: left out by {tmp_path / 'errors.csv'}:3"]
    assert data.summary["corrected"] == 1
    assert "labels that data.corrections has changed: 1" in notes(data.summary)
    also = prepare(path, corrections=str(tmp_path / "errors.csv"), label_map={"anger": "fear", "joy": "glad"})
    assert also.labels.names == ("fear", "glad")
    assert also.summary["corrected"] == 1
    path.write_text(path.read_text().replace("text 0", "<b>text</b> 0"))
    assert prepare(path, corrections=str(tmp_path / "errors.csv")).summary["corrected"] == 1, "of cleaned texts"
    new = load_labelled({**data.data, "path": str(path), "corrections": None}, data.labels, "test")
    assert new[1][0] == data.labels.ids["joy"]


def test_a_typing_error_in_a_correction_makes_no_class(prepare: Prepare, tmp_path: Path) -> None:
    path, errors = csv(tmp_path / "a.csv", 60), tmp_path / "errors.csv"
    errors.write_text("place,label,text\na.csv:2,angre,text 0\n")
    said = r"errors\.csv:2: no row of the data has the label 'angre'\. Did you mean 'anger'\?"
    with pytest.raises(UserError, match=said):
        prepare(path, corrections=str(errors))
    assert "angre" in prepare(path, corrections=str(errors), label_names=["anger", "angre", "fear", "joy"]).labels.ids
    errors.write_text("place,label,text\na.csv:2,surprise,text 0\n")
    assert "surprise" in prepare(path, corrections=str(errors)).labels.ids


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("text 0", "text 7", r"errors\.csv:2: the data has another text at a\.csv:2 now\. Correct the place"),
        ("a.csv:4", "a.csv:99", r"errors\.csv:4: the data has no row at a\.csv:99\. Correct the place"),
        ("a.csv:4", "a.csv:2", r"errors\.csv:4: a\.csv:2 has another label in .*errors\.csv:2\. Leave one"),
        (
            "place",
            "where",
            r"errors\.csv: no column 'place', .*\. data\.corrections has the columns place, text",
        ),
        ("text 2", "", r"errors\.csv:4: the text is empty\. Correct it"),
        (";fear;", ";panic;", ""),
    ],
)
def test_corrections_of_other_rows_are_refused(old: str, new: str, said: str, prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 60)
    (tmp_path / "errors.csv").write_text(CORRECTED.replace(old, new, 1))
    if not said:
        assert "panic" in prepare(path, corrections=str(tmp_path / "errors.csv")).labels.ids
        return
    with pytest.raises(UserError, match=said):
        prepare(path, corrections=str(tmp_path / "errors.csv"))


def test_corrections_find_their_rows_in_files_of_the_same_name(prepare: Prepare, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    path, test = csv(tmp_path / "a/a.csv", 60), csv(tmp_path / "b/a.csv", 60, start=60)
    (tmp_path / "errors.csv").write_text(CORRECTED)
    data = prepare(path, test_path=str(test), corrections=str(tmp_path / "errors.csv"))
    assert data.summary["corrected"] == 1
    assert len(data.rows["test"]) == 60


def test_numbers_that_have_names_are_no_corrections(prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 60, "0 1 2")
    (tmp_path / "errors.csv").write_text(CORRECTED)  # of which the first is one, and the last is not
    data = prepare(path, corrections=str(tmp_path / "errors.csv"), label_names=["joy", "anger", "fear"])
    assert data.summary["corrected"] == 1


@pytest.mark.parametrize("name", ["folder", "errors.txt", "errors.conll"])
def test_corrections_are_a_table(name: str, prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 60)
    (tmp_path / "folder").mkdir()
    for file in ("errors.txt", "errors.conll"):
        (tmp_path / file).write_text("a;b\n")
    with pytest.raises(UserError, match=r"not a table\. Give label_errors\.csv"):
        prepare(path, corrections=str(tmp_path / name))


def test_corrections_are_for_one_label_each(prepare: Prepare, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.csv", *labelled(["a"], ["b"]))
    (tmp_path / "errors.csv").write_text(CORRECTED)
    with pytest.raises(UserError, match=r"errors\.csv:2: rows with several labels, or tags, cannot be corrected"):
        prepare(path, format="jsonl", corrections=str(tmp_path / "errors.csv"))


@pytest.mark.parametrize(
    ("rows", "options", "names", "first"),
    [
        (labelled(["a", "b"], ["c"], ["b"]), {"label_map": {"b": "a", "c": None}}, ("a",), [0]),
        ([{"text": ["x", "y", "z"], "label": ["B-ORG", "I-ORG", "B-LOC"]}] * 9,
         {"label_map": {"ORG": "COMPANY", "LOC": None}}, ("O", "B-COMPANY", "I-COMPANY"), [1, 2, 0]),
        ([{"text": ["x", "y", "z"], "label": ["I-ORG", "I-LOC", "I-LOC"]}] * 9,
         {"label_map": {"ORG": "NAME", "LOC": "NAME"}}, ("O", "B-NAME", "I-NAME"), [1, 1, 2]),
        ([{"text": ["x", "y"], "label": ["NOUN", "PUNCT"]}] * 9, {"label_map": {"PUNCT": "X"}}, ("NOUN", "X"), [0, 1]),
        (labelled(0, 1, 2), {"label_names": ["no", "well", "yes"], "label_map": {"well": "no"}}, ("no", "yes"), 0),
        ([{"text": f"t {i}", "label": {"a": i % 2, "b": 1}} for i in range(20)], {"label_map": {"b": "c"}},
         ("a", "c"), [1]),
    ],
    ids=["several", "entities", "neighbours", "tags", "numbers", "ticks"],
)  # fmt: skip
def test_labels_of_every_form_are_renamed(
    rows: list[Any], options: dict[str, Any], names: tuple[str, ...], first: Any, prepare: Prepare, tmp_path: Path
) -> None:
    data = prepare(jsonl(tmp_path / "a.jsonl", *rows), **options, format="jsonl")
    assert data.labels.names == names
    every = [row for split in data.rows.values() for row in split]
    assert next(row["label"] for row in every if row["line"] == 1) == first


def test_a_fold_of_train_leaves_the_test_split_alone(
    prepare: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    csv(tmp_path / "train.csv", 50)
    csv(tmp_path / "validation.csv", 20, start=50)
    csv(tmp_path / "test.csv", 20, "unknown", start=70)
    with caplog.at_level(logging.INFO):
        data = prepare(tmp_path, fold=2)
    assert "test.csv, is left alone" in caplog.text
    assert {name: len(rows) for name, rows in data.rows.items()} == {"train": 36, "validation": 4, "test": 10}
    assert data.places("test") == [f"train.csv:{int(text.split()[1]) + 2}" for text in texts(data, "test")]
    assert data.pool is not None
    assert len(data.pool) == 50
    assert prepare(tmp_path, fold=2, train_size=10).pool is None, "layers would run on rows that no run needs"
    assert len(prepare(tmp_path, fold=2, eval_size=3).rows["test"]) == 10, "each row is to be tested on"


def test_a_single_file_is_divided_by_label(prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 200, "joy joy joy joy joy joy joy fear fear anger")
    data = prepare(path)
    assert {name: len(rows) for name, rows in data.rows.items()} == {"train": 140, "validation": 30, "test": 30}
    assert sorted(text for split in data.rows for text in texts(data, split)) == sorted(f"text {i}" for i in range(200))
    for split in ("validation", "test"):
        assert data.summary["splits"][split]["labels"] == {"anger": 3, "fear": 6, "joy": 21}
    again = prepare(path, seed=2)
    assert texts(again, "test") == texts(data, "test")  # the run's seed is not the seed of the split
    assert texts(prepare(path, split_seed=7), "test") != texts(data, "test")
    for size, rows in ((0.5, 100), (7, 7)):
        other = prepare(path, validation_size=size)
        assert [len(other.rows[split]) for split in ("train", "validation", "test")] == [170 - rows, rows, 30]
    assert any(line.startswith("30 rows of test: sweep=folds") for line in notes(data.summary))
    untested = prepare(path, test_size=0)
    assert {name: len(rows) for name, rows in untested.rows.items()} == {"train": 170, "validation": 30}
    assert not any("test" in line for line in notes(untested.summary))
    with pytest.raises(UserError, match=r"data\.test_size=0\.2: a fold is the test\. Leave it out"):
        prepare(path, test_size=0.2, fold=1)


def test_a_missing_validation_is_held_out_of_train_by_label(prepare: Prepare, tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", 100, "joy joy joy joy fear")
    csv(tmp_path / "test.csv", 10, "joy fear", start=100)
    data = prepare(tmp_path)
    assert data.summary["splits"]["validation"]["labels"] == {"fear": 2, "joy": 8}
    assert not set(texts(data, "train")) & set(texts(data, "validation"))
    assert len(data.rows["train"]) == 90
    assert texts(data, "test") == [f"text {i}" for i in range(100, 110)]
    assert len(prepare(tmp_path, validation_size=0.25).rows["validation"]) == 25
    assert len(prepare(tmp_path, validation_size=7).rows["validation"]) == 7


def test_rows_that_are_cleaned_are_held_out_at_the_same_places(prepare: Prepare, tmp_path: Path) -> None:
    """By them a sweep over cleaning knows that its scores are of the same rows."""
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"<b>{i}</b>,{'ab'[i % 2]}\n" for i in range(60)))
    plain, cleaned = (prepare(tmp_path / "rows.csv", clean_html=on).summary["splits"] for on in (False, True))
    for split in ("train", "validation", "test"):
        assert plain[split]["places"] == cleaned[split]["places"]
        assert plain[split]["fingerprint"] != cleaned[split]["fingerprint"]


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(("train_size", "eval_size"), [(20, 8), (0.5, 8), (60, 0.5)])
def test_subsets_are_the_rows_of_the_tutorials(
    train_size: float, eval_size: float, validation: bool, prepare: Prepare, tmp_path: Path
) -> None:
    given = {"train": csv(tmp_path / "train.csv", 80), "test": csv(tmp_path / "test.csv", 40, start=1000)}
    if validation:
        given["validation"] = csv(tmp_path / "val.csv", 40, start=2000)
    data = prepare(tmp_path, train_size=train_size, eval_size=eval_size)
    for split, path in given.items():
        size = train_size if split == "train" else eval_size
        whole = datasets.Dataset.from_dict({"text": [row.split(",")[0] for row in path.read_text().splitlines()[1:]]})
        count = size if isinstance(size, int) else round(size * len(whole))
        assert texts(data, split) == whole.shuffle(seed=42).select(range(count))["text"][:], split
    assert not set(texts(data, "train")) & set(texts(data, "validation"))
    if not validation:
        assert len(data.rows["validation"]) == {20: 8, 0.5: 8, 60: 3}[train_size]


def test_what_train_size_leaves_is_for_validation(prepare: Prepare, tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", 30)
    csv(tmp_path / "test.csv", 3)
    data = prepare(tmp_path, train_size=27)
    assert (len(data.rows["train"]), len(data.rows["validation"])) == (27, 3)
    data = prepare(tmp_path, train_size=30)  # nothing is left
    assert (len(data.rows["train"]), len(data.rows["validation"])) == (27, 3)


def test_evaluation_takes_all_of_a_split_that_has_fewer_rows(prepare: Prepare, tmp_path: Path) -> None:
    for split, rows in (("train", 30), ("val", 6), ("test", 12)):
        csv(tmp_path / f"{split}.csv", rows)
    data = prepare(tmp_path, eval_size=9)
    assert (len(data.rows["validation"]), len(data.rows["test"])) == (6, 9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train_size": 31}, "data.train_size=31, but there are 30 rows."),
        ({"train_size": 0}, "data.train_size=0, but there are 30 rows."),
        ({"train_size": -1}, "data.train_size=-1, but there are 30 rows."),
        ({"eval_size": -1}, "data.eval_size=-1, but there are"),
        ({"eval_size": 0}, "data.eval_size=0, but there are"),
        ({"eval_size": 30}, "30 rows of train are too few to train on 30 and hold out 30 for validation."),
        ({"train_size": 29}, "data.train_size=29 leaves 1 of 30 rows, and validation is to have 3."),
        ({"validation_size": -1}, "data.validation_size=-1, but there are 30 rows."),
        ({"train_size": 1}, "the training split has only the label"),
        ({"task": "token"}, "data.task=token, but each row has one label."),
        (
            {"label_names": ["joy", "fear"]},
            "train.csv:3: the label 'anger' is unknown; known: joy, fear. Correct it, add it to data.label_names,",
        ),
        (
            {"label_names": ["joy", "Anger", "fear"]},
            "train.csv:3: the label 'anger' is unknown (did you mean 'Anger'?); known: joy, Anger, fear.",
        ),
    ],
)
def test_settings_that_do_not_fit_the_data_are_errors(
    settings: dict[str, Any], said: str, prepare: Prepare, tmp_path: Path
) -> None:
    csv(tmp_path / "train.csv", 30)
    csv(tmp_path / "test.csv", 10)
    with pytest.raises(UserError) as raised:
        prepare(tmp_path, **settings).train_dataloader()
    assert said in str(raised.value)


def test_a_split_that_would_be_empty_is_an_error(prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "train.csv", 4, "joy anger fear")
    for data in (tmp_path, path):
        with pytest.raises(UserError, match=r"too few rows to divide: \w+ is empty.*Give more rows, or a file for"):
            prepare(data)
    csv(path, 30, " ".join(f"label{i}" for i in range(29)))
    for data in (tmp_path, path):
        with pytest.raises(
            UserError, match=r"29 labels in 30 rows: too many labels to divide them\. Check data\.label_column"
        ):
            prepare(data)
    with pytest.raises(UserError, match=r"too few rows to divide: validation is empty"):
        prepare(csv(path, 1, "joy"))


# Labels and tasks


@pytest.mark.parametrize(
    ("labels", "settings", "task", "names", "first"),
    [
        pytest.param(["b", "a"], {}, "sequence", ["a", "b"], 1, id="strings"),
        pytest.param([10, 9], {}, "sequence", ["9", "10"], 1, id="integers"),
        pytest.param([1.0, 0.0], {}, "sequence", ["0", "1"], 1, id="floats"),
        pytest.param([True, False], {}, "sequence", ["False", "True"], 1, id="booleans"),
        pytest.param([2, "joy"], {}, "sequence", ["2", "joy"], 0, id="integers and strings"),
        pytest.param([1, 0], {"label_names": ["neg", "pos"]}, "sequence", ["neg", "pos"], 1, id="names for integers"),
        pytest.param(["b", "a"], {"label_names": ["b", "a", "c"]}, "sequence", ["b", "a", "c"], 0, id="names given"),
        pytest.param([["b", "a"], []], {}, "multi_label", ["a", "b"], [0, 1], id="lists"),
        pytest.param([[1, 1], [0]], {}, "multi_label", ["0", "1"], [1], id="lists of integers, one twice"),
        pytest.param(
            [[0, 0, 1], [True, 0.0, 1.0]],
            {"label_names": ["joy", "fear", "anger"]},
            *("multi_label", ["joy", "fear", "anger"], [2]),
            id="marks by position",
        ),
        pytest.param(
            [[1, 1], [0, 0]],
            {"label_names": ["joy", "fear"]},
            *("multi_label", ["joy", "fear"], [0, 1]),
            id="marks of two labels",
        ),
        pytest.param(
            ["0|1|1", "1|0|0"],
            {"label_names": ["joy", "fear", "anger"], "label_separator": "|"},
            *("multi_label", ["joy", "fear", "anger"], [1, 2]),
            id="marks, separated",
        ),
        pytest.param(["b|a", "b"], {"label_separator": "|"}, "multi_label", ["a", "b"], [0, 1], id="separated"),
        pytest.param(
            ["joy", "fear"], {"task": "sequence"}, "sequence", ["fear", "joy"], 1, id="forced to what they are"
        ),
        pytest.param(
            ["S-Bahn", "E-Auto"],
            {"label_names": ["E-Auto", "S-Bahn"]},
            "sequence",
            ["E-Auto", "S-Bahn"],
            1,
            id="names that look like tags",
        ),
        pytest.param(["b", "a"], {"task": "multi_label"}, "multi_label", ["a", "b"], [1], id="forced to several"),
        pytest.param([["b"], ["a"]], {"task": "sequence"}, "sequence", ["a", "b"], 1, id="forced to one"),
    ],
)
def test_labels_and_task_come_from_the_data(
    labels: list[Any],
    settings: dict[str, Any],
    task: str,
    names: list[str],
    first: Any,
    prepare: Prepare,
    tmp_path: Path,
) -> None:
    jsonl(tmp_path / "train.jsonl", *labelled(*labels))
    jsonl(tmp_path / "val.jsonl", *labelled(*labels))
    data = prepare(tmp_path, **settings)
    assert data.labels.task == task
    assert list(data.labels.names) == names == data.summary["labels"]
    assert data.rows["train"][0]["label"] == first
    assert data.summary["label_order"]
    targets = data.encoded["train"].labels
    assert targets.shape == ((20, len(names)) if task == "multi_label" else (20,))


@pytest.mark.parametrize("settings", [{}, {"label_names": ["joy", "fear"]}])
def test_marks_by_position_need_a_name_for_each(settings: dict[str, Any], prepare: Prepare, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *labelled(["a"], [0, 0, 1]))
    with pytest.raises(UserError, match=r"a\.jsonl:2: 3 marks, 0 or 1 for each label, need data\.label_names with 3"):
        prepare(path, **settings)


def test_two_numbers_that_may_be_marks_or_labels_are_refused(prepare: Prepare, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *labelled([1, 1], [1, 0]))
    with pytest.raises(UserError, match=r"a\.jsonl:2: \[1, 0\] may be marks, .* or the numbers of labels"):
        prepare(path, label_names=["joy", "fear"])


def test_several_labels_cannot_be_forced_into_one(prepare: Prepare, tmp_path: Path) -> None:
    for several in ([], ["a", "b"]):
        path = jsonl(tmp_path / "a.jsonl", *labelled(["a"], several))
        with pytest.raises(
            UserError, match=rf"a\.jsonl:2: {len(several)} labels, where data\.task=sequence needs one\."
        ):
            prepare(path, task="sequence")


@pytest.mark.parametrize("task", ["sequence", "multi_label"])
def test_tags_of_words_cannot_be_forced_into_labels_of_texts(task: str, prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Maria B-PER\nsings O\n\n" * 10)
    with pytest.raises(UserError, match=f"data.task={task}, but each row has a list of words with a tag each"):
        prepare(tmp_path / "a.conll", task=task)


def test_of_many_labels_some_are_named_where_one_is_unknown(prepare: Prepare, tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", *labelled(*range(10, 35)))
    jsonl(tmp_path / "val.jsonl", {"text": "a", "label": 9})
    with pytest.raises(UserError, match=r"the label '9' is unknown; known: 10, .*, 29 and 5 more\. Correct it"):
        prepare(tmp_path)


def test_classes_are_balanced_by_what_is_learnt(prepare: Prepare, tmp_path: Path) -> None:
    """Of a long text that is every window, and of a word, if all its sub-tokens have labels, each of them."""
    rows = [{"text": "so sad " * 3, "label": "no"}, {"text": "so happy " * 40, "label": "yes"}] * 10
    both = {"validation_size": 2, "test_size": 0}
    data = prepare(jsonl(tmp_path / "texts.jsonl", *rows), max_length=16, truncation="windows", **both)
    counts = tuple(np.bincount(data.encoded["train"].labels))
    assert data.labels.counts == (9, 9)
    assert data.learnt().counts == counts
    assert counts[1] > 5 * counts[0]
    words = {"text": ["unbelievably", "sad"], "label": ["B-X", "O"]}
    data = prepare(jsonl(tmp_path / "words.jsonl", *[words] * 10), subword_labels="all", **both)
    assert data.labels.counts == (8, 8, 0)
    assert data.learnt().counts[1] == 8
    assert data.learnt().counts[2] > 8, "the tag of what goes on within an entity"


def test_words_with_tags_are_a_token_task(prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("".join(f"Maria{i} B-PER\nsings O\n\nOslo{i} I-LOC\n\n" for i in range(10)))
    data = prepare(path)
    assert data.labels.task == "token"
    assert data.labels.names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert data.labels.rows == 14
    assert sum(data.labels.counts) == sum(map(len, data.rows["train"]["text"]))
    batches = list(data.train_dataloader())
    assert set(batches[0]) == {
        "input_ids",
        "attention_mask",
        "padded",
        "labels",
        "words",
        "tags",
        "rows",
        "sentences",
        "weight",
    }
    assert np.mean([batch["weight"] for batch in batches]) == pytest.approx(1)
    plain = prepare(path, group_by_length=False)
    assert set(next(iter(plain.train_dataloader()))) == set(batches[0]) - {"weight"}


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("label", "train", "unknown", "known"),
    [
        pytest.param("sadness", ["joy", "fear"], "sadness", "fear, joy", id="a name"),
        pytest.param(0, ["joy", "fear"], "0", "fear, joy", id="a number among names"),
        pytest.param(0, [1, 2, 3], "0", "1, 2, 3", id="a number below those known"),
        pytest.param(["joy", "no"], [["joy"], ["fear"]], "no", "fear, joy", id="one of several"),
    ],
)
def test_a_label_that_training_does_not_know(
    label: Any, train: list[Any], unknown: str, known: str, split: str, prepare: Prepare, tmp_path: Path
) -> None:
    jsonl(tmp_path / "train.jsonl", *labelled(*train))
    path = jsonl(tmp_path / f"{split}.jsonl", *labelled(*train)[:5], {"text": "a", "label": label})
    problem = f"{path}:6: the label {unknown!r} is unknown"
    with pytest.raises(UserError) as raised:
        prepare(tmp_path)
    assert str(raised.value).startswith(f"{problem}; known: {known}. Correct it, or leave such rows out:")
    data = prepare(tmp_path, on_bad_row="skip")
    assert len(data.rows[split]) == 5
    assert data.summary["skipped"] == {split: 1}
    assert data.summary["skipped_rows"] == [problem]


def test_labels_of_no_use_are_errors(prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.csv: the training split has only the label 'joy'"):
        prepare(csv(tmp_path / "a.csv", 30, "joy"))
    with pytest.raises(UserError, match=r"a\.jsonl: no row has any label"):
        prepare(jsonl(tmp_path / "a.jsonl", *labelled([])), label_names=["a"])
    csv(tmp_path / "train.csv", 30)
    csv(tmp_path / "test.csv", 30, "other")
    with pytest.raises(UserError, match=r"test\.csv: no row has a known label\. Known: anger, fear, joy\."):
        prepare(tmp_path, on_bad_row="skip")


# What the user is shown


def test_the_summary_counts_what_there_is(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("happy;joy\nhappy;joy\nso sad;fear\nno label\n" + "so " * 99 + ";joy\n;joy\n")
    (tmp_path / "val.txt").write_text("happy;joy\nnew;fear\n")
    (tmp_path / "test.txt").write_text("happy;fear\nhappy;joy\nnew;joy\nmore;joy\n")
    data = prepare(tmp_path, max_length=16, on_bad_row="skip")
    train = data.summary["splits"]["train"]
    assert (train["rows"], train["labels"]) == (4, {"fear": 1, "joy": 3})
    assert (train["repeated"], train["truncated"], train["tokens"]["max"]) == (1, 0.25, 101)
    assert data.summary["splits"]["test"]["repeated"] == 1
    assert data.summary["shared"] == [
        {"in": "validation", "also_in": "train", "rows": 1},
        {"in": "test", "also_in": "train", "rows": 2},
        {"in": "test", "also_in": "validation", "rows": 3},
    ]
    assert data.summary["skipped"] == {"train": 2}
    assert data.summary["skipped_rows"] == [
        f"{tmp_path}/train.txt:4: no ';' between text and label",
        f"{tmp_path}/train.txt:6: the text is empty",
    ]
    assert data.summary["label_order"] == "alphabetical order of the labels"


def test_what_no_figure_can_count_is_counted(prepare: Prepare, tmp_path: Path) -> None:
    """Sentences read in windows, words that the tokenizer leaves nothing of, and rows without any label."""
    (tmp_path / "train.conll").write_text(
        "".join(f"w{i} {'B-X' if i < 20 else 'O'}\n" for i in range(40)) + "\n\u00ad O\n"
    )
    (tmp_path / "test.conll").write_text("a O\nb B-X\n")
    (tmp_path / "validation.conll").write_text("a O\nb B-X\n")
    data = prepare(tmp_path, max_length=12)
    splits = data.summary["splits"]
    assert (splits["train"]["tokenless"], splits["test"]["tokenless"]) == (1, 0)
    assert (splits["train"]["windowed"], splits["test"]["windowed"]) == (0.5, 0)
    scored = prepare(tmp_path, max_length=12, subword_labels="all", score_subwords=True)
    assert scored.summary["splits"] == data.summary["splits"], "words, though sub-tokens are scored"
    assert len(scored.encoded["train"].tags) > len(data.encoded["train"].tags)
    rows = [("a", ["x"]), ("b", ["x", "y"]), ("c", [])] * 10
    several = prepare(jsonl(tmp_path / "a.jsonl", *({"text": text, "label": own} for text, own in rows)))
    assert sum(split["unlabelled"] for split in several.summary["splits"].values()) == 10


def test_skipped_rows_are_all_counted_and_some_shown(prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 30)
    path.write_text(path.read_text() + "one field\n" * 1_000)
    data = prepare(path, on_bad_row="skip")
    assert data.summary["skipped"] == {"all": 1_000}
    assert len(data.summary["skipped_rows"]) == 20


def test_entities_that_begin_or_end_inside_a_word_are_noted(prepare: Prepare, tmp_path: Path) -> None:
    """JavaScript counts an emoji as two, so offsets of tools written in it are shifted after one."""
    rows = [{"text": f"{i} {emoji} Anna Lee left", "entities": [[start, start + 8, "PER"]]}
            for i in range(10) for emoji, start in (("a", 4), ("😀", 5), ("😀", 4))]  # fmt: skip
    summary = prepare(jsonl(tmp_path / "a.jsonl", *rows)).summary
    assert summary["inside_words"] == 10
    said = f"10 entities begin or end inside a word, such as 'nna Lee ' ({tmp_path}/a.jsonl:2): do the offsets count"
    assert any(note.startswith(said) for note in notes(summary))


# The cache and the batches


def test_data_is_encoded_once(
    prepare: Prepare, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path_factory.mktemp("cache")))
    calls: Counter[str] = Counter()
    encode = module.encode_split

    def counting(*arguments: Any, **options: Any) -> Any:
        calls["encoded"] += 1
        return encode(*arguments, **options)

    monkeypatch.setattr(module, "encode_split", counting)
    path = csv(tmp_path / "a.csv", 30)

    def encodes(**settings: Any) -> int:
        calls.clear()
        prepare(path, **settings)
        return calls["encoded"]

    assert encodes() == 3
    assert encodes() == 0
    assert encodes(seed=2, batch_size=5, padding="max_length") == 0
    assert encodes(max_length=8) == 3
    assert encodes(label_names=["joy", "fear", "anger"]) == 3
    assert encodes(train_size=10) == 1
    path.write_text(path.read_text().replace("text 7,", "other,"))
    assert encodes() == 1
    assert encodes() == 0


def test_runs_of_one_process_share_rows_until_something_changes(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = csv(tmp_path / "a.csv", 30), []
    load = module.sources.load
    monkeypatch.setattr(module.sources, "load", lambda *given: reads.append(given) or load(*given))

    def data(seed: int = 1, **settings: Any) -> TextDataModule:
        encoder = encoders("bert")
        given = {**DEFAULTS, "path": str(path), "format": None, **settings}
        return prepared(given, encoder, lambda task: load_tokenizer(encoder, task), 16, seed)

    first, second = data(), data(seed=2, batch_size=7)
    assert len(reads) == 1
    assert first.rows is second.rows
    assert (first.seed, second.seed, second.data["batch_size"]) == (1, 2, 7)
    assert [len(batch["rows"]) for batch in second.train_dataloader()] == [7, 7, 7]
    assert data(train_size=10).labels.rows == 10
    (tmp_path / ".#a.csv").symlink_to("nowhere")
    path.write_text(path.read_text().replace("text 7,", "other,"))
    assert any("other" in text for split in data().rows.values() for text in split["text"])
    assert len(reads) == 3
    for missing in (tmp_path / "gone.csv", "~nobody_such/a.csv", "a" * 5_000):
        with pytest.raises(UserError, match="no such file or folder"):
            data(path=str(missing))


def test_settings_saved_with_a_tokenizer_do_not_spoil_the_cache(
    encoders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """all-MiniLM-L6-v2 is saved with truncation and padding to 128."""
    keys: list[str] = []
    monkeypatch.setattr(module, "cached_split", lambda key, make: keys.append(key) or make())

    def tokenizer(task: Any) -> Any:
        loaded = load_tokenizer(encoders("bert"), task)
        loaded.backend_tokenizer.enable_truncation(4)
        loaded.backend_tokenizer.enable_padding(length=4)
        return loaded

    settings = {**DEFAULTS, "path": str(csv(tmp_path / "a.csv", 30))}
    for make in (tokenizer, lambda task: load_tokenizer(encoders("bert"), task)):
        TextDataModule(settings, make, 64, 1).prepare()
    assert keys[:3] == keys[3:]


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_loaders_pad_as_asked_and_show_every_row(padding: str, prepare: Prepare, tmp_path: Path) -> None:
    data = prepare(csv(tmp_path / "a.csv", 100, "joy fear"), max_length=20, padding=padding, batch_size=8)
    for loader, rows in ((data.train_dataloader(), 70), (data.val_dataloader(), 15)):
        batches = list(loader)
        assert sorted(row for batch in batches for row in batch["rows"].tolist()) == list(range(rows))
        for batch in batches:
            longest = int(batch["attention_mask"].sum(1).max())
            assert longest < 20
            assert batch["input_ids"].shape[1] == (longest if padding == "longest" else 20)


def test_balanced_needs_one_label_per_text(prepare: Prepare, tmp_path: Path) -> None:
    data = prepare(jsonl(tmp_path / "a.jsonl", *labelled(["a"], ["a", "b"])), sampler="balanced")
    with pytest.raises(UserError, match=r"data\.sampler=balanced needs one label per text.*loss=balanced"):
        data.check_batches()


# New data for a finished run


def test_new_data_takes_the_labels_of_the_run(prepare: Prepare, tmp_path: Path) -> None:
    labels = prepare(csv(tmp_path / "a.csv", 30)).labels
    new = jsonl(tmp_path / "new.jsonl", {"text": "a", "label": "joy"}, {"text": "b", "label": "other"})
    said = r"new\.jsonl:2: the label 'other' is unknown; known: anger, fear, joy\. Correct it, or leave such rows out"
    with pytest.raises(UserError, match=said):
        load_labelled({**DEFAULTS, "path": str(new), "label_names": ["anger", "fear", "joy"]}, labels, "test")
    found = load_labelled({**DEFAULTS, "path": str(new), "on_bad_row": "skip"}, labels, "test")
    assert found == (["a"], [2], ["new.jsonl:1"], [f"{new}:2: the label 'other' is unknown"], [])
    csv(tmp_path / "train.csv", 3)
    (tmp_path / "a.csv").unlink()
    csv(tmp_path / "val.csv", 3, "fear")
    found_texts, ids, *_ = load_labelled({**DEFAULTS, "path": str(tmp_path), "format": "csv"}, labels, "validation")
    assert (found_texts, ids) == (["text 0", "text 1", "text 2"], [1, 1, 1])
    with pytest.raises(UserError, match="no split test in the format csv; it holds: "):
        load_labelled({**DEFAULTS, "path": str(tmp_path), "format": "csv"}, labels, "test")


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        (
            "new.csv",
            '"5,joy\n',
            ["data.header=false", "data.quoting=none", "data.text_column=0", "data.label_column=1"],
        ),
        ("new.txt", '"5|joy\n', ["data.separator='|'"]),
    ],
)
def test_new_data_may_be_written_in_another_way(
    name: str, content: str, settings: list[str], prepare: Prepare, tmp_path: Path
) -> None:
    labels = prepare(csv(tmp_path / "a.csv", 30)).labels
    (tmp_path / name).write_text(content)
    asked = configured("run=x", f"data.path={tmp_path / name}", *settings, verb="evaluate").data
    given = {key: value for key, value in asked.items() if value is not None}
    assert load_labelled({**DEFAULTS, "format": None, **given}, labels, "test") == (['"5'], [2], [f"{name}:1"], [], [])


def test_new_texts_with_marked_entities_are_split_into_words_as_the_run_splits_them(tmp_path: Path) -> None:
    new = jsonl(tmp_path / "new.jsonl", {"text": "See E-404 in Oslo.", "entities": [[13, 17, "LOC"]]})
    labels = LabelSet("token", ("O", "B-LOC", "I-LOC"), (3, 1, 0))
    predictor = SimpleNamespace(labels=labels, joined_by="-")
    found = new_rows(tmp_path, DEFAULTS, {"path": str(new)}, predictor, "test")  # type: ignore[arg-type]
    assert (found.texts, found.gold) == ([["See", "E-404", "in", "Oslo", "."]], [[0, 0, 0, 1, 0]])
    jsonl(new, {"text": "See E-404 in Oslo.", "label": "LOC"})
    said = (
        r"each row has one label\. The run needs rows with a list of words with a tag each, or a text with marked ent"
    )
    with pytest.raises(UserError, match=said):
        new_rows(tmp_path, {**DEFAULTS, "task": None}, {"path": str(new), "task": None}, predictor, "test")  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [{"sampler": "balanced"}, {"group_by_length": False}, {"padding": "max_length"}])
def test_a_budget_of_tokens_stands_alone(other: dict[str, Any], prepare: Prepare, tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", 60, "joy fear")
    whole = prepare(path, tokens_per_batch=64).train_dataloader()
    assert all(batch["input_ids"].numel() <= 64 for batch in whole)
    with pytest.raises(UserError, match="tokens_per_batch needs rows of like length"):
        prepare(path, tokens_per_batch=64, **other).check_batches()


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("labels", [["a", "b", "a"], [["a"], ["a", "b"], []]])
def test_with_a_budget_of_tokens_every_row_counts_alike(
    labels: list[Any], processes: int, prepare: Prepare, tmp_path: Path
) -> None:
    """Whether it shares its batch with many short texts or with few long ones."""
    rows = [{**row, "text": "text " * (1 + 19 * (i % 2))} for i, row in enumerate(labelled(*labels))]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    data = prepare(path, tokens_per_batch=64)
    train, validation = [], []
    for rank in range(processes):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(world_size=processes, global_rank=rank, strategy=strategy)
        train += list(data.train_dataloader())
        validation += list(data.val_dataloader())
    assert len({len(batch["rows"]) for batch in train}) > 1
    assert len({round(float(batch["weight"]) / len(batch["rows"]), 6) for batch in train}) == 1
    assert np.mean([batch["weight"] for batch in train]) == pytest.approx(1)
    evaluated = sorted(row for batch in validation for row in batch["rows"].tolist())
    assert evaluated == list(range(len(data.rows["validation"])))
    assert not any("weight" in batch for batch in [*validation, *prepare(path).train_dataloader()])

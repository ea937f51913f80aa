"""Rows of one group, such as the tickets of a customer, are never divided among splits or folds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT
from thaw.data.module import TextDataModule, load_labelled
from thaw.data.rows import dataset_of
from thaw.data.sources import load
from thaw.data.splits import divide, text_keys
from thaw.data.stratified import hold_out_groups, linked, stratified_group_folds
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.models.encoder import load_tokenizer
from thaw.new_rows import new_rows
from thaw.reporting.advice import notes
from thaw.reporting.summary import data_tables

LABELS = LabelSet("sequence", ("a", "b", "c"), (1, 1, 1))
Rows = list[tuple[str, str, Any]]


@pytest.fixture
def prepare(encoders: Callable[[str], Path]) -> Callable[..., TextDataModule]:
    """A function that prepares the data of a path, of which the column who names the groups."""
    import yaml

    defaults = yaml.safe_load((ROOT / "conf" / "data" / "_data.yaml").read_text())

    def prepared(path: Path, **data: Any) -> TextDataModule:
        settings = {**defaults, "path": str(path), "group_column": "who", **data}
        done = TextDataModule(settings, lambda task: load_tokenizer(encoders("bert"), task), 64, 1)
        done.prepare()
        return done

    return prepared


def tickets(count: int, start: int = 0, each: int = 4) -> Rows:
    """Texts with a label and a customer, who wrote some in a row."""
    return [(f"text {i}", "abc"[i * i % 3], f"customer {i // each}") for i in range(start, start + count)]


def csv(path: Path, rows: Rows) -> Path:
    lines = [f"{text},{label},{'' if group is None else group}\n" for text, label, group in rows]
    path.write_text("text,label,who\n" + "".join(lines))
    return path


def groups(rows: Any) -> set[str]:
    return {name for name in rows["group"][:] if name is not None}


def test_rows_are_linked_by_group_and_by_text() -> None:
    texts = np.array([5, 9, 9, 7, 3, 5, 1, 1])
    keys = linked(texts, ["x", "x", "y", None, "z", None, None, None])
    assert len({*keys[[0, 1, 2, 5]]}) == len({*keys[[6, 7]]}) == 1, "x and y share a text, and so does a row of none"
    assert len({*keys}) == 4
    assert len({*linked(np.arange(3), [None] * 3)}) == 3


def test_texts_that_link_most_groups_are_told(caplog: pytest.LogCaptureFixture) -> None:
    names = [str(i // 2) for i in range(100)]
    linked(np.arange(100), names)
    linked(np.arange(100), ["one"] * 60 + names[60:])
    assert not caplog.text, "a large group is no surprise"
    linked(np.where(np.arange(100) % 4, np.arange(100), 0), names)
    assert "Texts that several groups share link 50 of 100 rows" in caplog.text


@pytest.mark.parametrize("size", [60, 0.15, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_whole_groups_are_held_out_with_labels_about_in_proportion(size: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    keys = generator.permutation(np.repeat(np.arange(120), generator.integers(1, 12, 120)))
    labels = np.where(keys % 5 == 0, 1, generator.choice([0, 0, 2], len(keys)))  # some customers have a single label
    kept, held = hold_out_groups(labels.tolist(), size, seed, keys)
    wanted = size if isinstance(size, int) else round(size * len(keys))
    assert sorted([*kept, *held]) == list(range(len(keys)))
    assert not np.intersect1d(keys[kept], keys[held]).size
    assert abs(len(held) - wanted) <= 11, "the largest group"
    for label in range(3):
        assert abs((labels[held] == label).sum() - (labels == label).sum() * wanted / len(keys)) <= 6
    again = hold_out_groups(labels.tolist(), size, seed, -1000 * keys)  # as in another process, with other hashes
    assert np.array_equal(again[1], held)
    assert not np.array_equal(hold_out_groups(labels.tolist(), size, seed + 9, keys)[1], held)


def test_every_row_of_many_rare_labels_counts() -> None:
    _, held = hold_out_groups([i % 50 for i in range(500)], 0.15, 0, np.arange(500))
    assert abs(len(held) - 75) <= 1


def test_a_label_of_a_single_group_stays_in_training() -> None:
    keys = np.arange(100) // 5
    labels = ["rare" if key == 3 else "common" for key in keys]
    for seed in range(10):
        held = hold_out_groups(labels, 0.4, seed, keys)[1]
        assert len(held) == 40
        assert 3 not in keys[held]
    assert not len(hold_out_groups(["a", "b"], 1, 0, np.arange(2))[1])


def test_a_group_is_held_out_even_if_all_are_too_large() -> None:
    kept, held = hold_out_groups(["a", "b"] * 150, 0.1, 0, np.arange(300) // 100)
    assert (len(kept), len(held)) == (200, 100)


def test_folds_are_of_whole_groups_and_about_as_large() -> None:
    generator = np.random.default_rng(0)
    keys = generator.permutation(np.repeat(np.arange(90), generator.integers(1, 12, 90)))
    labels = generator.choice([0, 0, 0, 1], len(keys))
    folds = stratified_group_folds(labels.tolist(), 5, 1, keys)
    assert {*folds.tolist()} == set(range(5))
    assert all(len({*folds[keys == key]}) == 1 for key in range(90))
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 2
    assert np.ptp([(labels[folds == fold] == 1).sum() for fold in range(5)]) <= 2
    assert np.array_equal(folds, stratified_group_folds(labels.tolist(), 5, 1, -1000 * keys))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"test_size": 0, "validation_size": 20},
        {"test_size": 0.3, "train_size": 0.5},
        {"files": True},
        {"files": True, "test_size": 30},
        {"files": True, "train_size": 50},
        {"files": True, "train_size": 0.5, "eval_size": 12},
        {"fold": 2, "folds": 4},
        {"files": True, "fold": 1, "folds": 3, "train_size": 40},
    ],
    ids=str,
)
def test_no_group_or_text_is_in_two_splits(settings: dict[str, Any]) -> None:
    texts, labels, names = map(list, zip(*tickets(160), strict=True))
    texts[100:104] = texts[20:24]  # so that two customers share a text
    names[150:] = [None] * 10
    rows = dataset_of(pa.table({"text": texts, "label": ["abc".index(label) for label in labels], "group": names}))
    data: dict[str, Any] = {"split_seed": 42, "validation_size": None, **settings}
    parts = divide({"train" if data.pop("files", False) else "all": rows}, LABELS, data, "here")
    assert all(map(len, parts.values()))
    for name, part in parts.items():
        for other in parts:
            if name < other:
                assert not groups(part) & groups(parts[other])
                assert not np.intersect1d(text_keys(part["text"][:]), text_keys(parts[other]["text"][:])).size
    if "train_size" in settings and isinstance(settings["train_size"], int):
        assert len(parts["train"]) == settings["train_size"]


def test_too_few_groups_are_an_error(tmp_path: Path, prepare: Callable[..., TextDataModule]) -> None:
    path = csv(tmp_path / "a.csv", [(f"text {i}", "ab"[i // 20], "ab"[i // 20]) for i in range(40)])
    with pytest.raises(
        UserError, match=r"a\.csv: too few groups to divide: validation is empty.*Check data\.group_column"
    ):
        prepare(path)
    with pytest.raises(UserError, match=r"data\.folds=5, but there are 2 groups that share no text"):
        prepare(path, fold=1)


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "xlsx", "jsonl", "parquet", "hub", "without a header"])
def test_groups_are_read_from_a_column(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels, given = ["so", "no", "oh", "ah"], ["x", "y", "x", "y"], [17, None, 17, 4]
    columns: dict[str, Any] = {"text": texts, "label": labels, "who": given}
    data: dict[str, Any] = {"group_column": "who"}
    lines = [columns.keys(), *zip(texts, labels, ["17", "", "17.0", " 4 "], strict=True)]
    path = tmp_path / f"rows.{kind.partition(' ')[0]}"
    if kind == "hub":
        import datasets

        found = datasets.Dataset.from_dict(columns)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict({"train": found}))
        data |= {"hub": "owner/name"}
    elif kind == "parquet":
        pq.write_table(pa.table(columns), path)
    elif kind == "jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(texts, labels, given, strict=True)]
        del rows[1]["who"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for line in lines:
            book.active.append(list(line))
        book.save(path)
    elif kind == "csv.gz":
        import gzip

        path.write_bytes(gzip.compress("".join(",".join(line) + "\n" for line in lines).encode()))
    elif kind == "tsv":
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    else:
        lines, path = (lines[1:], tmp_path / "a.csv") if kind == "without a header" else (lines, path)
        data |= {} if kind == "csv" else {"header": False, "group_column": 2, "text_column": 0, "label_column": 1}
        path.write_text("".join(",".join(line) + "\n" for line in lines))
    source = load(data if kind == "hub" else {**data, "path": str(path)})
    (rows_read,) = source.splits.values()
    assert rows_read["group"][:] == ["17", None, "17", "4"]


def test_texts_with_marked_entities_have_groups_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"text": "Anna met", "entities": [{"start": 0, "end": 4, "label": "PER"}], "who": "x"}
    path.write_text(json.dumps(row) + "\n")
    assert load({"path": str(path), "group_column": "who"}).splits["all"]["group"][:] == ["x"]


@pytest.mark.parametrize(
    ("name", "content", "column", "said"),
    [
        ("a.csv", "text,label,who\nso,x,b\n", "whom", "a.csv: no column 'whom', but 'who'; it has: text, label, who"),
        ("a.csv", "text,label,who\nso,x,b\n", "label", "a.csv: the column 'label' is text or label, too"),
        ("a.csv", "text,label,who,who\nso,x,b,c\n", "who", "a.csv: several columns are named 'who'"),
        ("a.jsonl", '{"text": "so", "label": "x", "who": ["b"]}\n', "who", "a.jsonl:1: the group is of type list"),
        ("a.jsonl", '{"text": "so", "label": "x", "who": "\\ud83d"}\n', "who", "a.jsonl:1: half of a character"),
        ("a.txt", "so;x\n", "who", "data.group_column=who: the format txt has no columns with names"),
        ("a.conll", "so O\n", 0, "data.group_column=0: the format conll has no columns with names"),
    ],
)
def test_what_is_no_group_is_told(name: str, content: str, column: str | int, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        load({"path": str(tmp_path / name), "group_column": column})
    assert said in str(error.value)


def test_splits_that_stand_apart_may_share_groups_which_is_told(
    tmp_path: Path, prepare: Callable[..., TextDataModule]
) -> None:
    csv(tmp_path / "train.csv", tickets(80))
    csv(tmp_path / "validation.csv", [*tickets(6, 200), ("one", "a", None), ("other", "b", None)])
    csv(tmp_path / "test.csv", tickets(40, 60))
    data = prepare(tmp_path)
    splits = data.summary["splits"]
    assert {name: split["groups"] for name, split in splits.items()} == {"train": 20, "validation": 4, "test": 10}
    assert ["groups", "20", "4", "10"] in data_tables(data.summary)[0][2]
    assert "groups of test that are also in train: 5" in notes(data.summary)
    assert not any("groups of validation" in line for line in notes(data.summary))
    plain = prepare(tmp_path, group_column=None)
    assert "groups" not in plain.summary["splits"]["train"]
    assert not any("groups" in line for line in notes(plain.summary))


def test_groups_of_a_file_are_divided_and_counted(tmp_path: Path, prepare: Callable[..., TextDataModule]) -> None:
    rows = [*tickets(190), *((f"alone {i}", "abc"[i % 3], None) for i in range(10))]
    data = prepare(csv(tmp_path / "a.csv", rows))
    assert sum(split["groups"] for split in data.summary["splits"].values()) == 48 + 10
    assert not any(line.startswith("groups of") for line in notes(data.summary))
    assert [abs(len(data.rows[name]) - rows) <= 2 for name, rows in (("validation", 30), ("test", 30))] == [True, True]
    again = prepare(tmp_path / "a.csv")
    assert all(again.rows[name]["text"][:] == data.rows[name]["text"][:] for name in data.rows)


def test_new_rows_need_no_groups(tmp_path: Path, prepare: Callable[..., TextDataModule]) -> None:
    data = prepare(csv(tmp_path / "a.csv", tickets(100)))
    (tmp_path / "new.csv").write_text("text,label\nso,a\n")
    given = {"path": str(tmp_path / "new.csv")}

    class Known:
        labels, joined_by = data.labels, ""

    known: Any = Known
    found = new_rows(tmp_path, data.data, given, known, "test")
    assert (found.texts, found.groups) == (["so"], [])
    (note,) = found.notes
    assert note.startswith("These rows lack the column 'who', by which the run's are grouped: the intervals")
    (tmp_path / "new.txt").write_text("so;a\n")
    flat = new_rows(tmp_path, data.data, {"path": str(tmp_path / "new.txt")}, known, "test")
    assert (flat.texts, flat.groups, len(flat.notes)) == (["so"], [], 1)
    with pytest.raises(UserError, match="no column 'who'"):
        load_labelled({**data.data, **given}, data.labels, "test")
    with pytest.raises(UserError, match="no column 'whom'"):
        new_rows(tmp_path, data.data, {**given, "group_column": "whom"}, known, "test")


def test_new_rows_keep_the_groups_that_they_have(tmp_path: Path, prepare: Callable[..., TextDataModule]) -> None:
    """Also where the first row has none, another row is skipped, or the column has another name."""
    data = prepare(csv(tmp_path / "a.csv", tickets(100)))

    class Known:
        labels, joined_by = data.labels, ""

    known: Any = Known
    rows = [{"text": "so", "label": "a"}, {"text": "oh", "label": "unknown", "who": "x"},
            *({"text": text, "label": "b", "who": "y"} for text in ("no", "ah"))]  # fmt: skip
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"path": str(path), "on_bad_row": "skip"}
    found = new_rows(tmp_path, data.data, given, known, "test")
    assert (found.texts, found.groups) == (["so", "no", "ah"], [None, "y", "y"])
    assert [note.partition(":")[0] for note in found.notes] == ["Rows skipped"]
    path.write_text(path.read_text().replace('"who"', '"customer"'))
    renamed = new_rows(tmp_path, data.data, {**given, "group_column": "customer"}, known, "test")
    assert renamed.groups == [None, "y", "y"]

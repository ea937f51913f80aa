"""Several labels per text may stand in as many columns of 0 and 1."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from conftest import ROOT
from thaw.data.module import TextDataModule, load_labelled
from thaw.data.sources import load
from thaw.errors import UserError
from thaw.rules import RULES

COLUMNS = ["toxic", "threat", "rude"]
ROWS = [("a", 1, 0, 1), ("b", 0, 0, 1), ("c", 0, 0, 0), ("d", 1, 0, 1)]


def write(kind: str, folder: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that name a file with the rows, or a data set on the Hub."""
    path = folder / f"a.{kind}"
    records = [dict(zip(["text", *COLUMNS], row, strict=True)) for row in rows]
    if kind in ("csv", "tsv"):
        lines = [["text", *COLUMNS], *rows]
        path.write_text("".join(("," if kind == "csv" else "\t").join(map(str, line)) + "\n" for line in lines))
    elif kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for line in [["text", *COLUMNS], *rows]:
            book.active.append(line)
        book.save(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        found = datasets.Dataset.from_list(records)
        if kind == "hub":
            monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(train=found))
            return {"hub": "owner/name", "label_column": COLUMNS}
        found.to_parquet(path)
    return {"path": str(path), "label_column": COLUMNS}


def module(settings: dict[str, Any]) -> TextDataModule:
    import yaml

    defaults = yaml.safe_load((ROOT / "conf" / "data" / "_data.yaml").read_text())
    found = TextDataModule({**defaults, **settings}, lambda _: None, 64, 1)
    found.read()
    return found


KINDS = ["csv", "tsv", "xlsx", "jsonl", "parquet", "hub"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_of_a_row_are_the_columns_with_1(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of the data are the columns, in their order, even one that no row has."""
    for rows in (ROWS, [(text, *map(bool, marks)) for text, *marks in ROWS]):
        source = load(write(kind, tmp_path, rows, monkeypatch))
        (found,) = source.splits.values()
        assert found["label"][:] == [["toxic", "rude"], ["rude"], [], ["toxic", "rude"]]
        assert source.names == COLUMNS
    data = module(write(kind, tmp_path, ROWS * 10, monkeypatch))
    assert (data.labels.task, data.labels.names) == ("multi_label", tuple(COLUMNS))


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_are_bad_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = write(kind, tmp_path, [*ROWS, ("e", 0, 2, 0)], monkeypatch)
    with pytest.raises(UserError, match=r"'threat' is '?2'?, where 0 or 1 says whether a text has the label"):
        load(settings)
    source = load({**settings, "on_bad_row": "skip"})
    assert [len(rows) for rows in source.splits.values()] == [4]


def test_columns_without_names_go_by_position(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,1,0\nb,0,1\n")
    settings = {"path": str(tmp_path / "a.csv"), "header": False, "text_column": 0, "label_column": [1, 2]}
    assert load(settings).splits["all"]["label"][:] == [["1"], ["2"]]


@pytest.mark.parametrize("missing", ["csv", "jsonl"])
def test_columns_that_are_not_there_are_told(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = write(missing, tmp_path, ROWS, monkeypatch)
    with pytest.raises(UserError, match=r"no column 'tread', but 'threat'; it has: .*\. Set data\.label_column\."):
        load({**settings, "label_column": ["toxic", "tread"]})
    with pytest.raises(UserError, match="the column 'text' is both text and label"):
        load({**settings, "label_column": ["toxic", "text"]})


@pytest.mark.parametrize(("name", "content"), [("a.txt", "so;yes\n"), ("a.conll", "so O\n")])
def test_files_without_named_columns_have_none_of_labels(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"has no columns with names\. Write labels of 0 and 1 as csv"):
        load({"path": str(tmp_path / name), "label_column": COLUMNS})


def test_new_rows_have_the_columns_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(write("csv", tmp_path, ROWS * 10, monkeypatch))
    new = write("jsonl", tmp_path, ROWS[:2], monkeypatch)
    assert load_labelled({**data.data, **new, "format": None}, data.labels, "test")[1] == [[0, 2], [2]]


def test_lists_of_labels_as_predict_writes_them_stand_for_the_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(write("csv", tmp_path, ROWS * 10, monkeypatch))
    (tmp_path / "corrected.csv").write_text('text,labels\na,"[""toxic"", ""threat""]"\nb,[]\n')
    new = {"path": str(tmp_path / "corrected.csv"), "format": None, "lenient": True}
    assert load_labelled({**data.data, **new}, data.labels, "test")[1] == [[0, 1], []]
    (tmp_path / "corrected.csv").write_text("text,labels,toxic\na,[],1\n")
    with pytest.raises(UserError, match="no column 'threat'"):
        load_labelled({**data.data, **new}, data.labels, "test")


def test_at_least_two_different_columns_are_needed() -> None:
    accepts, _ = RULES["data.label_column"]
    assert all(map(accepts, [None, "label", 1, ["a", "b"], [0, 1, 2]]))
    assert not any(map(accepts, [[], ["a"], ["a", "a"], ["a", None], ["a", ["b"]], True]))

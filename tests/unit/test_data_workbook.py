"""An Excel workbook is read as Excel shows its first sheet, and what is written to one comes back the same."""

import datetime
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from thaw.data.rows import Row
from thaw.data.sources import load
from thaw.data.workbook import read_sheet, sheet_writer
from thaw.errors import UserError


def workbook(path: Path, *rows: list[Any]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def texts(path: Path, **data: Any) -> list[Any]:
    (split,) = load({"path": str(path), "format": "csv", **data}).splits.values()
    return [Row(row["line"], row["text"], row["label"]) for row in split]


def test_rows_have_the_numbers_and_the_text_that_excel_shows(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx",
        ["label", "text", "day"],
        [1, "one\nline more"],
        [],
        [True, 0.5, datetime.date(2026, 11, 27)],
        [2.0, datetime.datetime(2026, 11, 27, 9, 30)],
    )
    assert texts(path) == [Row(2, "one\nline more", "1"), Row(4, "0.5", "TRUE"), Row(5, "2026-11-27 09:30:00", "2")]
    assert list(read_sheet(path))[3] == (4, ["TRUE", "0.5", "2026-11-27"])


def test_cells_may_hold_lists(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", ["tokens", "tags"], [json.dumps(["Ann", "ran"]), '["B-PER", "O"]'])
    assert texts(path, task="token") == [Row(2, ["Ann", "ran"], ["B-PER", "O"])]


def test_a_cell_beyond_the_header_is_a_bad_row(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", ["text", "label"], ["a", "x"], ["b", "x", "more"])
    with pytest.raises(UserError, match=r"a\.xlsx:3: 3 fields where the header has 2\. Fix the row"):
        texts(path)


def test_the_first_sheet_in_sight_is_read_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = openpyxl.Workbook()
    book.active.sheet_state = "hidden"
    for name in ("tickets", "legend"):
        book.create_sheet(name).append([name])
    book.save(tmp_path / "a.xlsx")
    with caplog.at_level("INFO"):
        assert list(read_sheet(tmp_path / "a.xlsx")) == [(1, ["tickets"])]
    assert "the first of 2 sheets is read, 'tickets'" in caplog.text


def test_stated_dimensions_that_are_wrong_cut_nothing(tmp_path: Path) -> None:
    """Some programs write A1 whatever the sheet holds."""
    path, other = workbook(tmp_path / "a.xlsx", ["text", "label"], ["a", "x"]), tmp_path / "b.xlsx"
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(other, "w") as wrong:
        for name in book.namelist():
            content = book.read(name)
            assert not name.endswith("sheet1.xml") or b'"A1:B2"' in content
            wrong.writestr(name, content.replace(b'"A1:B2"', b'"A1"'))
    assert texts(other) == [Row(2, "a", "x")]


def test_all_characters_come_back(tmp_path: Path) -> None:
    given = ["a\rb\tc\nd\x00e", "_x0041_ and _x00", "\ufffe \ud800", "naïve 😀", " blanks ", "=1+1", "#N/A"]
    with sheet_writer(tmp_path / "a.xlsx") as write:
        write(given)
    ((_, cells),) = read_sheet(tmp_path / "a.xlsx")
    assert cells == [text.replace("\ud800", "\ufffd") for text in given]  # half a pair is no character


def test_numbers_of_no_value_are_empty_cells(tmp_path: Path) -> None:
    with sheet_writer(tmp_path / "a.xlsx") as write:
        write([float("nan"), None, 0.25])
    assert list(read_sheet(tmp_path / "a.xlsx")) == [(1, ["", "", "0.25"])]


def test_a_damaged_sheet_is_one_line(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", ["text", "label"], ["a", "x"])
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as broken:
        for name in book.namelist():
            content = book.read(name)
            broken.writestr(name, content[:-60] if name.endswith("sheet1.xml") else content)
    with pytest.raises(UserError, match=r"b\.xlsx: cannot be read as an Excel workbook: .*\. Save it again"):
        texts(tmp_path / "b.xlsx")


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"a\.xlsx needs the package openpyxl\. .*pip install -e '\.\[excel\]'"):
        list(read_sheet(tmp_path / "a.xlsx"))

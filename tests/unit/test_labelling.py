"""What ``predict.py`` reads and writes: by the rules of training, and nothing of the input is lost."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import pytest

from conftest import configured
from thaw.errors import UserError
from thaw.files import read_jsonl
from thaw.inference import labelling
from thaw.inference.abstaining import abstaining
from thaw.inference.classifying import unlabelled
from thaw.inference.records import kind_of, read_records
from thaw.inference.texts import as_in_training, blank
from thaw.inference.writing import writer
from thaw.labels import LabelSet
from thaw.rules import PREDICT_RULES
from thaw.settings import check

Predict = Callable[..., list[dict[str, Any]]]


class Named:
    """Stands for a predictor that gives every text the same label, and a score by which it is known again."""

    clean = False

    def __init__(self, label: str) -> None:
        self.label, self.labels = label, LabelSet("sequence", (label,), (1,))
        self.cut, self.others, self.min_score, self.network = 0, list[Any](), None, None

    def __call__(self, texts: Iterable[Any], probabilities: bool) -> list[dict[str, Any]]:
        return list(self.stream(texts, probabilities))

    def stream(self, texts: Iterable[Any], probabilities: bool) -> Iterator[dict[str, Any]]:
        for given in texts:
            text = str(as_in_training(given, self.labels, self.clean))
            result = self.result(text) | ({"probabilities": {self.label: 0.5, "x": 0.7}} if probabilities else {})
            yield unlabelled(result) if blank(text, self.labels.pairs) else result

    def result(self, text: str) -> dict[str, Any]:
        return {"text": text, "label": self.label, "score": len(text)}


class Cleaner(Named):
    """As `Named`, of a run that cleaned its texts of HTML."""

    clean = True


class Tagger(Named):
    """As `Named`, of words: each gets the label as its tag."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.labels = LabelSet("token", ("O", label), (1, 1))

    def words_of(self, text: str) -> list[str]:
        return text.split()

    def stream(self, texts: Iterable[Any], probabilities: bool) -> Iterator[dict[str, Any]]:
        for text in texts:
            if isinstance(text, str):
                yield {"text": text, "entities": []}
            else:
                size = len(text)
                yield {"words": text, "tags": [self.label] * size, "scores": [0.123456789] * size, "entities": []}


class Unsure(Named):
    """As `Named`, and leaves texts of less than three letters to people."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.min_score, self.sure, self.unsure = 3, 0, 0

    def stream(self, texts: Iterable[Any], probabilities: bool) -> Iterator[dict[str, Any]]:
        predictor: Any = self
        return abstaining(predictor, super().stream(texts, probabilities))


class Several(Named):
    """As `Named`, with two labels for each text."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.labels = LabelSet("multi_label", (label, "x"), (1, 1))

    def result(self, text: str) -> dict[str, Any]:
        return {"text": text, "labels": [self.label, "x"], "scores": {self.label: 0.5, "x": 0.7}}


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """A function that writes an input, labels it, and gives the rows of the output.

    Args of the function:
        source, content: the input; None takes it as it stands.
        output: the output; its ending is its format.
        run: names the run, and is what it predicts.
        model: stands for its predictor.
        data: the ``data`` group of the run's config.
    """
    kind: dict[str, type[Named]] = {}
    monkeypatch.setattr(labelling.Predictor, "from_run", lambda run, **_: kind["of"](Path(run).name))

    def run(
        source: str, content: str | bytes | None, *settings: str, output: str = "out.jsonl", run: str = "A",
        model: type[Named] = Named, **data: Any,
    ) -> list[dict[str, Any]]:  # fmt: skip
        kind["of"] = model
        (tmp_path / run).mkdir(exist_ok=True)
        (tmp_path / run / "config.yaml").write_text(json.dumps({"data": data}))
        if content is not None:
            (tmp_path / source).write_bytes(content.encode() if isinstance(content, str) else content)
        read = source if source == "-" else f"{tmp_path}/{source}"
        places = [f"run={tmp_path}/{run}", f"input={read}", f"output={tmp_path}/{output}"]
        labelling.label(configured(*places, *settings, verb="predict"))
        if output.endswith(".xlsx"):
            names, *rows = openpyxl.load_workbook(tmp_path / output).active.values
            return [dict(zip(names, row, strict=True)) for row in rows]
        if output.endswith(".jsonl"):
            return read_jsonl(tmp_path / output)
        if output.endswith(".conll"):
            return []
        with (tmp_path / output).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t" if output.endswith(".tsv") else ","))

    return run


def test_two_models_one_after_the_other_leave_the_labels_of_both(predict: Predict) -> None:
    predict("gold.csv", "text,label\nfine,joy\n", output="a.csv")
    (row,) = predict("a.csv", None, output="b.csv", run="B")
    assert row == {
        "text": "fine", "label": "joy", "predicted_label": "A", "score": "4",
        "predicted_predicted_label": "B", "predicted_score": "4",
    }  # fmt: skip


MIXED = '{"text": "fine"}\n\n{"text": "bad", "label": "anger", "id": 7}\n{"label": "joy", "text": "so"}\n'


def test_json_lines_keep_their_fields_and_ours_are_named_alike_in_all(predict: Predict) -> None:
    assert predict("in.jsonl", MIXED) == [
        {"text": "fine", "predicted_label": "A", "score": 4},
        {"text": "bad", "label": "anger", "id": 7, "predicted_label": "A", "score": 3},
        {"label": "joy", "text": "so", "predicted_label": "A", "score": 2},
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_of_json_lines_has_a_column_for_every_field(kind: str, predict: Predict, tmp_path: Path) -> None:
    predict("in.jsonl", MIXED, output=f"out.{kind}")
    lines = (tmp_path / f"out.{kind}").read_text().replace("\t", ",").splitlines()
    assert lines == ["text,label,id,predicted_label,score", "fine,,,A,4", "bad,anger,7,A,3", "so,joy,,A,2"]


def test_a_bad_json_line_is_told_before_anything_is_predicted(
    predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling.Predictor, "from_run", lambda *_, **__: pytest.fail("the network is loaded"))
    for bad, said in (
        ('{"text": ', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"id": 1}', "the field 'text' is missing. Fix it, set text_column, or"),
        ('{"id": 1, "sentence": "another field"}', "the field 'text' is missing. Fix it, set text_column, or"),
        ("[" * 100_000, "not readable as JSON"),
    ):
        with pytest.raises(UserError, match=rf"in\.jsonl:2: {said}"):
            predict("in.jsonl", f'{{"text": "fine"}}\n{bad}\n')


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_of_another_format_than_said_is_told_from_text(kind: str, predict: Predict) -> None:
    """Parquet is no csv with the line ends of an old Mac."""
    with pytest.raises(UserError, match=r"rows\.parquet: Parquet, not text\. Set data\.format=parquet \(format in pre"):
        predict("rows.parquet", b"PAR1\x15\x04\x15\r\n", f"format={kind}")
    with pytest.raises(
        UserError, match=r"rows\.doc: its name implies no readable format.*\.txt, \.csv, \.tsv, \.jsonl"
    ):
        predict("rows.doc", "so")


def test_an_old_workbook_is_to_be_saved_as_a_new_one(predict: Predict) -> None:
    with pytest.raises(UserError, match=r"in\.xls: a workbook of a kind that is not read\. Save it as \.xlsx or CSV"):
        predict("in.xls", b"\xd0\xcf\x11\xe0")


def test_a_workbook_is_labelled_into_a_workbook(predict: Predict, tmp_path: Path) -> None:
    """Text that looks like a formula stays text."""
    book = openpyxl.Workbook()
    for row in (["id", "text"], [7, "first"], [2, "=1+1"]):
        book.active.append(row)
    book.active["B3"].data_type = "s"
    book.save(tmp_path / "in.xlsx")
    assert predict("in.xlsx", None, output="out.xlsx") == [
        {"id": "7", "text": "first", "label": "A", "score": 5},
        {"id": "2", "text": "=1+1", "label": "A", "score": 4},
    ]
    assert openpyxl.load_workbook(tmp_path / "out.xlsx").active["B3"].data_type == "s"
    assert not list(tmp_path.glob(".*"))


def test_numbers_stay_numbers_in_a_workbook_unless_excel_would_round_them(predict: Predict) -> None:
    given = {"text": "a", "id": 123456789012345678, "count": 3, "share": 0.25}
    (row,) = predict("in.jsonl", json.dumps(given), output="out.xlsx")
    assert row == given | {"id": "123456789012345678", "label": "A", "score": 1}


def test_what_a_sheet_cannot_hold_leaves_the_output_as_it_was(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "out.xlsx").write_text("mine")
    with pytest.raises(UserError, match=r"row 2 has a text of 35,000 characters, and a cell holds 32,767\. Give \.csv"):
        predict("in.jsonl", json.dumps({"text": "long " * 7_000}), output="out.xlsx")
    assert (tmp_path / "out.xlsx").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"A", "in.jsonl", "out.xlsx"}


def test_macros_cannot_be_written(predict: Predict) -> None:
    with pytest.raises(UserError, match=r"not a format that can be written\. Give .*\.xlsx"):
        predict("in.txt", "a\n", output="out.xlsm")


def test_columns_of_one_name_are_all_kept(predict: Predict) -> None:
    (row,) = predict("in.csv", "text,id,id,,\nfirst,7,second,a,b\n")
    assert list(row.values()) == ["first", "7", "second", "a", "b", "A", 5]
    with pytest.raises(UserError, match=r"in\.csv: several columns are named 'text'"):
        predict("in.csv", "text,id,text\nfirst,7,second\n")


def test_records_of_a_json_array(predict: Predict) -> None:
    rows = predict("in.json", '[{"id": 1, "text": "so"},\n {"text": "fine", "more": [1]}]')
    assert [(row["text"], row["score"]) for row in rows] == [("so", 2), ("fine", 4)]


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_a_json_array_is_written(lines: int, predict: Predict, tmp_path: Path) -> None:
    content = "".join(json.dumps({"text": f"schön {i}", "weight": float("nan")}) + "\n" for i in range(lines))
    predict("in.jsonl", content, output="out.json")
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(row["text"], row["weight"], row["label"]) for row in rows] == [
        (f"schön {i}", None, "A") for i in range(lines)
    ]


def test_a_full_disk_behind_standard_output_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Such as that of ``> labels.jsonl``; nothing is said twice as Python exits."""
    code = "from thaw.inference.writing import writer\nwith writer(None, 'jsonl') as write:\n    write({'a': 1})\n"
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.stdout = open('/dev/full', 'w')\n{code}"],
                          capture_output=True, text=True)  # fmt: skip
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith("standard output: cannot be written: No space left on device. Make room.")
    )


# Tables are read as training reads them


@pytest.mark.parametrize(
    ("content", "settings", "data"),
    [
        pytest.param("one\ntwo\n", ["header=false", "text_column=0"], {}, id="no header"),
        pytest.param("one,x\ntwo,y\n", ["text_column=0"], {"header": False}, id="no header, as in the run"),
        pytest.param("text\none\ntwo\n", ["header=true"], {"header": False}, id="a header, unlike in the run"),
        pytest.param("id, text\n1,one\n2,two\n", [], {}, id="blanks in the header"),
        pytest.param("\n  \ntext;id\none;1\n\n   \ntwo;2\n", [], {}, id="blank lines"),
        pytest.param('text;id\n"one;1\ntwo;2\n', ["quoting=none"], {}, id="quotes are characters"),
        pytest.param('text;id\n"one;1\ntwo;2\n', [], {"quoting": "none"}, id="quotes are characters, as in the run"),
    ],
)
def test_tables(content: str, settings: list[str], data: dict[str, Any], predict: Predict) -> None:
    rows = predict("in.csv", content, *settings, **data)
    assert [row["score"] for row in rows] == [len('"one') if '"' in content else len("one"), len("two")]


def test_what_excel_adds_to_its_rows_is_no_row(predict: Predict, tmp_path: Path) -> None:
    content = "sep=;\ntext;id\none, two;1\n;\nfine;2\n;\n;\n"
    rows = predict("in.csv", content)
    assert [(row["text"], row["id"]) for row in rows] == [("one, two", "1"), ("", ""), ("fine", "2")]
    with pytest.raises(UserError, match=r"in\.csv:4: 1 field where the header has 2"):
        predict("in.csv", "sep=;\ntext;id\none, two;1\nbad\n")
    predict("in.csv", content, output="out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("text;id;label;score\none, two;1;A;8\n;;;\n")
    predict("in.csv", "sep=^\ntext^id\none^1\n", output="out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("text,id,")


def test_a_row_without_text_stays_a_row_of_a_table_of_one_column(predict: Predict) -> None:
    assert [row["text"] for row in predict("in.csv", 'text\none\n""\n\n  \ntwo\n')] == ["one", "", "  ", "two"]


def test_a_first_line_taken_for_a_header_beside_a_position_is_told(
    predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(predict("in.csv", "I love this\nI hate it\n", "text_column=0")) == 1
    said = "in.csv: the first line names the columns: I love this; header=false makes it a row\n"
    assert capsys.readouterr().err.endswith(said)
    predict("in.csv", "text\nI hate it\n", "text_column=0", "header=true")
    predict("in.csv", "text\nI hate it\n")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ("", [], "in.csv: the file is empty."),
        ("\n\n", ["header=false"], "in.csv: the file is empty."),
        ("a,b\n1,2\n", [], "it has: a, b. Set text_column. Without a header line: header=false text_column=0, say."),
        ("a,b\n1,2\n", ["header=false"], "it has: 0, 1. Set text_column. With a header line: header=true."),
        ("text,b\n1\n", [], "in.csv:2: 1 field where the header has 2. Fix the row, set quoting=none where"),
        ("1,2\n1\n", ["header=false", "text_column=0"], "in.csv:2: 1 field where the first line has 2. Fix the row"),
        ('"a" b,1\n', ["header=false", "text_column=0"], "in.csv:1: the quotes do not match"),
        ('text,b\n"a" c,1\n', [], "in.csv:2: the quotes do not match"),
        ('text,b\n"a,1\nb,2\n', [], "in.csv:2: the quotes that open here do not match up to line 3"),
    ],
)
def test_a_table_that_cannot_be_right_is_an_error(
    content: str, settings: list[str], said: str, predict: Predict
) -> None:
    with pytest.raises(UserError) as raised:
        predict("in.csv", content, *settings)
    assert said in str(raised.value)
    assert not re.search(r"data\.\w", str(raised.value)), "predict.py has no such group"
    if "quotes" in said:
        assert " set quoting=none" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "settings", "data", "length"),
    [
        ("title,body,text\na,four,no\n", [], {"text_column": "body"}, 4),
        ("title,body,text\na,four,no\n", ["text_column=text"], {"text_column": "body"}, 2),
        ("title,text\na,no\n", [], {"text_column": "body"}, 2),
        ("7,four\n", [], {"text_column": 1, "header": False}, 4),
        ("a,text\nb,no\n", [], {"text_column": 0, "format": "conll"}, 2),
        ("7,four\n", [], {"text_column": 1, "header": False, "format": "tsv"}, 4),
    ],
)
def test_the_column_of_the_run_is_read_where_the_table_has_it(
    content: str, settings: list[str], data: dict[str, Any], length: int, predict: Predict
) -> None:
    assert [row["score"] for row in predict("in.csv", content, *settings, **data)] == [length]


def test_a_position_counts_in_files_of_its_own_kind_only(predict: Predict) -> None:
    """Not among the fields of JSON lines, and in columns whatever the file is called."""
    (row,) = predict("in.jsonl", '{"id": 7, "text": "hello"}\n', text_column=0, header=False)
    assert row["score"] == len("hello")
    for name in ("in.conll", "in.txt"):
        (row,) = predict(name, "1 so O\n2 it O\n", model=Tagger, format="conll", text_column=1)
        assert row["words"] == ["so", "it"]
    with pytest.raises(UserError, match=r"^text_column=words: CoNLL columns have no names"):
        predict("in.conll", "so O\n", "text_column=words", model=Tagger)


def test_a_csv_file_of_a_tsv_file_has_commas(predict: Predict, tmp_path: Path) -> None:
    predict("in.tsv", "text\tid\nso, so\t1\n", output="out.csv")
    assert (tmp_path / "out.csv").read_text() == 'text,id,label,score\n"so, so",1,A,6\n'
    predict("in.csv", "text;id\nso;1\n", output="out.tsv")
    assert (tmp_path / "out.tsv").read_text() == "text\tid\tlabel\tscore\nso\t1\tA\t2\n"


@pytest.mark.parametrize("name", ["UTF-8", "utf8", "U8"])
def test_utf_8_by_any_name_gets_no_byte_order_mark(name: str, predict: Predict, tmp_path: Path) -> None:
    predict("in.csv", "text\nso\n", f"encoding={name}", output="out.csv")
    assert (tmp_path / "out.csv").read_text() == "text,label,score\nso,A,2\n"


def test_words_are_a_text_and_other_values_are_not(predict: Predict) -> None:
    (row,) = predict("in.jsonl", '{"tokens": ["so", "fine"]}\n')
    assert row == {"tokens": ["so", "fine"], "label": "A", "score": len("so fine")}
    with pytest.raises(UserError, match=r"in\.jsonl:1: the text is neither text nor words"):
        predict("in.jsonl", '{"text": {"a": 1}}\n')


def test_a_table_without_rows_has_the_columns_of_any_other(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("in.csv", "id,text,label\n", output="out.csv") == []
    assert (tmp_path / "out.csv").read_text() == "id,text,label,predicted_label,score\n"
    assert "in.csv holds no text" in capsys.readouterr().err
    predict("in.csv", None, "explain=leave_one_out", f"explain_page={tmp_path}/page.html", output="out.csv")
    assert (tmp_path / "out.csv").read_text() == "id,text,label,predicted_label,score,explanation\n"


def test_a_table_of_excel_is_written_as_excel_reads_it(predict: Predict, tmp_path: Path) -> None:
    """With semicolons where those stand, and with the mark without which UTF-8 is taken for something else."""
    predict("a.csv", "\ufefftext;id\r\nschön;1\r\n", output="a_out.csv")
    assert (tmp_path / "a_out.csv").read_bytes() == "\ufefftext;id;label;score\nschön;1;A;5\n".encode()
    predict("b.csv", "text;id\r\nschön;1\r\n".encode("cp1252"), "encoding=cp1252", output="b_out.csv")
    assert (tmp_path / "b_out.csv").read_bytes() == (tmp_path / "a_out.csv").read_bytes()
    predict("c.csv", "text,id\nschön,1\n", output="c_out.csv")
    assert (tmp_path / "c_out.csv").read_text() == "text,id,label,score\nschön,1,A,5\n"


def test_rows_of_another_encoding_are_not_skipped_if_there_are_many(predict: Predict) -> None:
    said = r"in\.txt: 11 of 31 rows are not UTF-8: .* Say which: encoding=cp1252, say"
    with pytest.raises(UserError, match=said):
        predict("in.txt", ("so\n" * 20 + "schön\n" * 11).encode("cp1252"), "on_bad_row=skip")


@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.jsonl"])
def test_text_of_another_encoding_is_refused_and_read_where_it_is_named(name: str, predict: Predict) -> None:
    content = {
        "in.csv": "text\nso\nschön\n",
        "in.txt": "so\n\nschön\n",
        "in.jsonl": '\n{"text": "so"}\n{"text": "schön"}',
    }
    with pytest.raises(
        UserError,
        match=rf"{name}:3: not UTF-8[^.]*\. Save it as UTF-8, set its encoding \(encoding=cp1252, say\), or leave",
    ):
        predict(name, content[name].encode("cp1252"))
    assert predict(name, content[name].encode("cp1252"), "encoding=cp1252")[-1]["text"] == "schön"


def test_another_column_than_that_of_the_run_is_told(predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    predict("in.csv", "title,text\na,no\n", text_column="body")
    assert "in.csv: no column 'body' as in the run; 'text' is read.\n" in capsys.readouterr().err
    predict("in.jsonl", '{"title": "a", "text": "no"}\n', text_column="body")
    assert "in.jsonl: no column 'body' as in the run; 'text' is read.\n" in capsys.readouterr().err
    predict("in.csv", "title,body\na,no\n", text_column="body")
    assert not capsys.readouterr().err


def test_several_labels_are_written_as_training_reads_them(predict: Predict) -> None:
    (row,) = predict("in.csv", "text\nso\n", output="out.csv", model=Several, label_separator="|")
    assert row["labels"] == "A|x"
    (row,) = predict("in.csv", "text\nso\n", output="out.csv", model=Several)
    assert row["labels"] == '["A", "x"]'


@pytest.mark.parametrize(
    ("kind", "content"), [("csv", "id,text\n1,one\n"), ("jsonl", '{"id": "1", "text": "one"}\n'), ("conll", "one O\n")]
)
def test_standard_input_may_be_of_any_format(
    kind: str, content: str, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    (row,) = predict("-", None, f"format={kind}")
    given = {"words": ["one"], "tags": ["O"]} if kind == "conll" else {"id": "1", "text": "one"}
    assert row == {**given, "label": "A", "score": 3}


@pytest.mark.parametrize("kind", ["csv", "tsv", "xlsx"])
def test_a_table_has_a_column_for_the_probability_of_each_label(kind: str, predict: Predict, tmp_path: Path) -> None:
    """Whether or not its first row has text; one whose name is taken gets another."""
    content = 'text,probability_x\n"",mine\nso,mine\n'
    nothing, row = predict("in.csv", content, "probabilities=true", output=f"out.{kind}", model=Several)
    own = ["labels", "scores", "probability_A", "predicted_probability_x"]
    assert list(row) == list(nothing) == ["text", "probability_x", *own]
    assert [str(row[name]) for name in own[2:]] == ["0.5", "0.7"]
    assert [nothing[name] or "" for name in own[2:]] == ["", ""]


def test_a_table_of_a_single_text_or_of_none_has_these_columns_too(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict("in.csv", "text\n", "probabilities=true", output="out.csv", model=Several)
    assert (tmp_path / "out.csv").read_text() == "text,labels,scores,probability_A,probability_x\n"
    monkeypatch.setattr(labelling.Predictor, "from_run", lambda *_, **__: Named("A"))
    output = tmp_path / "one.csv"
    labelling.label(configured(f"run={tmp_path}", "text=so", "probabilities=true", f"output={output}", verb="predict"))
    assert output.read_text() == "text,label,score,probability_A\nso,A,2,0.5\n"


@pytest.mark.parametrize("nothing", ["<br/>", "&nbsp;", "<!-- a note -->", " ", "\u200b"])
def test_a_row_of_which_no_text_is_left_gets_no_label(
    nothing: str, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["so", nothing, "<b>it</b>"]
    content = "".join(json.dumps({"text": text}) + "\n" for text in given)
    rows = predict("in.jsonl", content, "probabilities=true", model=Cleaner)
    assert [row["text"] for row in rows] == given
    assert [row["label"] for row in rows] == ["A", None, "A"]
    assert (rows[1]["score"], rows[1]["probabilities"]) == (None, {})
    assert capsys.readouterr().err == "warning: 1 of 3 rows hold no text, and get no label\n"


def test_a_row_without_text_is_not_left_to_people(predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    rows = predict("in.jsonl", '{"text": "so"}\n{"text": ""}\n{"text": "fine"}\n', model=Unsure)
    assert [(row["label"], row["guess"], row["score"]) for row in rows] == [
        (None, "A", 2), (None, None, None), ("A", "A", 4),
    ]  # fmt: skip
    assert capsys.readouterr().err.splitlines()[-1] == "note: texts left to people, with a score below 3: 1 of 2"


def test_a_row_without_text_has_no_score_of_any_of_several_labels(predict: Predict) -> None:
    nothing, row = predict("in.jsonl", '{"text": " "}\n{"text": "so"}\n', "probabilities=true", model=Several)
    assert nothing == {"text": " ", "labels": [], "scores": {}, "probabilities": {}}
    assert (row["labels"], row["probabilities"]) == (["A", "x"], {"A": 0.5, "x": 0.7})


# Words


SENTENCES = "-DOCSTART- O\n\nMy O\niPhone B-PRODUCT\n\nE-404 B-ERROR\n"


@pytest.mark.parametrize("name", ["in.conll", "in.txt"])
def test_conll_columns_are_read_and_written(
    name: str, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predict(name, SENTENCES, model=Tagger)
    assert rows == [
        {"words": ["My", "iPhone"], "tags": ["O", "B-PRODUCT"], "predicted_tags": ["A", "A"],
         "scores": [0.123457] * 2, "entities": []},
        {"words": ["E-404"], "tags": ["B-ERROR"], "predicted_tags": ["A"], "scores": [0.123457], "entities": []},
    ]  # fmt: skip
    assert ("in.txt is read as CoNLL columns; format=txt" in capsys.readouterr().err) == (name == "in.txt")
    predict(name, SENTENCES, output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_text() == "My O A\niPhone B-PRODUCT A\n\nE-404 B-ERROR A\n\n"


def test_a_text_file_may_be_said_to_be_text(predict: Predict) -> None:
    rows = predict("in.txt", SENTENCES, "format=txt", model=Tagger)
    assert [row["text"] for row in rows] == SENTENCES.splitlines()
    assert [row["text"] for row in predict("in.txt", "O\nso it is O\n", model=Tagger)] == ["O", "so it is O"]


def test_words_of_json_lines_get_a_tag_each(predict: Predict, tmp_path: Path) -> None:
    line = '{"id": 7, "ner_tags": [0, 1], "tokens": ["New York", "won"]}\n'
    (row,) = predict("in.jsonl", line, model=Tagger)
    assert row == {**json.loads(line), "tags": ["A", "A"], "scores": [0.123457] * 2, "entities": []}
    predict("in.jsonl", line, output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_text() == "New York\t0\tA\nwon 1 A\n\n"


def test_the_columns_are_those_of_the_first_sentence(predict: Predict, tmp_path: Path) -> None:
    """A list that is as long as one of the sentences only would make the file unreadable."""
    sentences = [
        {"words": [], "pos": []},
        {"words": ["so", "it", "is"], "pos": ["A", "B", "C"], "topics": ["x", "y"]},
        {"words": ["by", "chance"], "pos": [1, 2], "topics": ["x", "y"]},
        {"words": ["none"], "topics": []},
        {"words": ["too", "few"], "pos": ["A"]},
        {"words": ["no", "value"], "pos": ["A", None]},
    ]
    content = "".join(json.dumps(sentence) + "\n" for sentence in sentences)
    predict("in.jsonl", content, output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_text() == (
        "\nso A A\nit B A\nis C A\n\nby 1 A\nchance 2 A\n\nnone _ A\n\ntoo _ A\nfew _ A\n\nno _ A\nvalue _ A\n\n"
    )
    rows = predict("out.conll", None, model=Tagger)
    assert [row["words"] for row in rows] == [one["words"] for one in sentences[1:]]


def test_no_cell_of_columns_ends_a_column_or_a_line(predict: Predict, tmp_path: Path) -> None:
    sentence = {"words": ["a\tb", "c\r", "d\ne", " ", "", "5\u00a0%"], "pos": ["x\ty", "", "\u00a0", "z", "z", "z"]}
    predict("in.jsonl", json.dumps(sentence), output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_bytes().decode() == (
        "a b\tx y\tA\nc _ A\nd e\t_\tA\n_ z A\n_ z A\n5\u00a0% z A\n\n"
    )
    (row,) = predict("out.conll", None, model=Tagger)
    assert row["words"] == ["a b", "c", "d e", "_", "_", "5\u00a0%"]


def test_columns_of_a_text_hold_the_words_that_it_is_divided_into(predict: Predict, tmp_path: Path) -> None:
    predict("in.csv", "id,text\n1,so it is\n2,\n3,fine\n", output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_text() == "so A\nit A\nis A\n\n\nfine A\n\n"


def test_words_come_first_whatever_the_columns_are_called(predict: Predict, tmp_path: Path) -> None:
    predict("in.csv", ",words,text\n0,x,so it\n", "text_column=text", output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_text() == "so A\nit A\n\n"


def test_a_word_that_was_not_read_leaves_the_tags_of_the_others(predict: Predict, tmp_path: Path) -> None:
    class Unread(Tagger):
        def stream(self, texts: Iterable[Any], probabilities: bool) -> Iterator[dict[str, Any]]:
            for words in texts:
                tags = [None if word == "\u200b" else self.label for word in words]
                yield {"words": words, "tags": tags, "scores": [tag and 0.5 for tag in tags]}

    predict("in.jsonl", '{"words": ["a", "\u200b"]}\n{"words": ["\u200b"]}\n', output="out.conll", model=Unread)
    assert (tmp_path / "out.conll").read_text() == "a A\n\u200b _\n\n\u200b _\n\n"


@pytest.mark.parametrize(
    ("kind", "nothing", "scores"),
    [("csv", "", ["2", "3"]), ("xlsx", None, [2, 3]), ("jsonl", None, [2, 3])],
)
def test_what_is_left_to_people_has_no_label_but_a_guess(
    kind: str, nothing: Any, scores: list[Any], predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predict("in.txt", "so\nbad\n", output=f"out.{kind}", model=Unsure)
    assert list(rows[0]) == ["text", "label", "guess", "score"]
    assert [tuple(row.values()) for row in rows] == [("so", nothing, "A", scores[0]), ("bad", "A", "A", scores[1])]
    assert capsys.readouterr().err == "note: texts left to people, with a score below 3: 1 of 2\n"


def test_a_table_does_not_lose_what_its_first_row_lacks(predict: Predict, tmp_path: Path) -> None:
    lines = '{"text": "so it"}\n{"text": ["so", "it"]}\n'
    with pytest.raises(UserError, match=r"no column for 'scores', which earlier records do not have\. Give \.jsonl"):
        predict("in.jsonl", lines, output="out.csv", model=Tagger)
    assert not (tmp_path / "out.csv").exists()
    assert ["tags" in row for row in predict("in.jsonl", lines, model=Tagger)] == [False, True]


def test_what_columns_cannot_hold_is_refused_before_anything_is_labelled(predict: Predict) -> None:
    with pytest.raises(UserError, match="CoNLL columns cannot hold explanations"):
        predict("in.conll", SENTENCES, "explain=leave_one_out", output="out.conll", model=Tagger)
    with pytest.raises(UserError, match="CoNLL columns cannot hold a single text"):
        labelling.label(configured("run=A", "text=so", "output=out.conll", verb="predict"))


def test_lists_that_never_end_are_a_text(predict: Predict) -> None:
    (row,) = predict("in.csv", "text\n" + '"[""a"",' + "[" * 100_000 + '"\n', model=Tagger)
    assert row["entities"] == []
    assert predict("in.txt", '["a", "b"]\n', model=Tagger) == [{"text": '["a", "b"]', "entities": []}]


def test_words_in_a_field_of_a_table_are_words(predict: Predict, tmp_path: Path) -> None:
    """As a table that was made of words holds them."""
    predict("in.conll", SENTENCES, output="a.csv", model=Tagger)
    rows = predict("a.csv", None, "text_column=words", model=Tagger, run="B")
    assert [row["predicted_predicted_tags"] for row in rows] == [["B", "B"], ["B"]]
    (row,) = predict("c.csv", """text\n"['so', ""it's""]"\n""", model=Tagger)
    assert row["tags"] == ["A", "A"], "as pandas writes a list"
    (row,) = predict("b.csv", 'text\n"[""a"", 1]"\n', model=Tagger)
    assert row == {"text": '["a", 1]', "entities": []}


def test_columns_are_for_tags_of_words(predict: Predict, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"out\.conll: the run labels texts, not words\. Give \.jsonl, \.csv or \.tsv\."
    ):
        predict("in.conll", SENTENCES, output="out.conll")
    assert not (tmp_path / "out.conll").exists()
    with pytest.raises(UserError, match="probabilities=true is for labels of whole texts"):
        predict("in.conll", SENTENCES, "probabilities=true", model=Tagger)


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ("a O\nb\n", [], "in.conll:2: 1 column where the first line has 2"),
        ("a O\n", ["text_column=2"], "in.conll:1: no column 2"),
        ("a O\n", ["text_column=-3"], "in.conll:1: no column -3"),
        ("a\tO\n\tO\n", [], "in.conll:1: a word of this sentence is empty"),
    ],
)
def test_wrong_columns_are_told(content: str, settings: list[str], said: str, predict: Predict) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        predict("in.conll", content, *settings, model=Tagger)


def test_the_words_may_be_in_any_column(predict: Predict) -> None:
    (row,) = predict("in.conll", "1 so X O\n2 it Y O\n", "text_column=1", model=Tagger)
    assert list(row) == ["column_0", "words", "column_2", "tags", "predicted_tags", "scores", "entities"]
    assert row["words"] == ["so", "it"]
    (row,) = predict("in.conll", "1 so X O\n2 it Y O\n", "text_column=-3", model=Tagger)
    assert row["words"] == ["so", "it"]
    (row,) = predict("in.conll", "1 so X\n", model=Tagger, format="conll", text_column=1)
    assert row["words"] == ["so"]


def test_words_may_stand_alone(predict: Predict) -> None:
    (row,) = predict("in.conll", "so\nit\n", model=Tagger)
    assert list(row) == ["words", "tags", "scores", "entities"]
    assert row["words"] == ["so", "it"]


def test_columns_without_words_leave_the_names_of_a_table(predict: Predict, tmp_path: Path) -> None:
    predict("in.conll", "\n", output="out.csv", model=Tagger)
    assert (tmp_path / "out.csv").read_text() == "words,entities\n"


def test_a_list_of_other_things_than_words_is_no_text(predict: Predict) -> None:
    with pytest.raises(UserError, match=r"in\.jsonl:1: the text is neither text nor words\."):
        predict("in.jsonl", '{"text": [1, 2]}\n')


@pytest.mark.parametrize(
    ("name", "content", "skipped"),
    [
        ("in.txt", b"one\n\xff\ntwo\n", {2: "not UTF-8"}),
        ("in.csv", b"text,b\none,1\nshort\n\xff,2\ntwo,3\n", {3: "1 field where the header", 4: "not UTF-8"}),
        ("in.jsonl", b'{"text": "one"}\n{\n{"b": 1}\n{"text": [1]}\n{"text": "two"}\n',
         {2: "not valid JSON", 3: "the field 'text' is missing", 4: "the text is neither text nor words"}),
        ("in.json", b'[{"text": "one"}, 3, {"text": "two"}]', {2: "not a JSON object"}),
    ],
)  # fmt: skip
def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(
    name: str, content: bytes, skipped: dict[int, str], predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=rf"{name}:{min(skipped)}: .* or leave such rows out: on_bad_row=skip\."):
        predict(name, content)
    rows = predict(name, content, "on_bad_row=skip")
    assert [(row["text"], row["label"]) for row in rows] == [("one", "A"), ("two", "A")]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    for line, (number, problem) in zip(lines, skipped.items(), strict=True):
        assert f"{name}:{number}: {problem}" in line


def test_of_many_bad_rows_the_first_are_named(predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence with a bad line is left out as a whole; so is the first, which tells the fields."""
    predict("in.conll", "one O\ntwo\n\n" * 12 + "three O\n", "on_bad_row=skip", output="out.conll", model=Tagger)
    *named, more = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert (len(named), more) == (10, "skipped 2 more rows")


def test_an_input_that_is_no_file_is_told(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.txt", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(UserError, match=re.escape(f"input={path}: {said}. Give a file, or -")):
            kind_of(str(path), None, "utf-8")


def test_columns_of_another_encoding_are_known_too(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(SENTENCES, encoding="utf-16")
    assert kind_of(str(tmp_path / "in.txt"), None, "utf-16") == "conll"


def test_standard_input_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines() -> Iterator[bytes]:
        yield b"one\n"
        raise AssertionError("the next line may be an hour away")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines()))
    source = read_records("-", "txt", labelling.sources.options({}, prefix=""))
    assert next(source.records)[0] == "one"


def test_the_settings_of_tables_are_checked() -> None:
    rules = {key: PREDICT_RULES[key] for key in ("header", "quoting")}
    check({"header": None, "quoting": None}, rules)
    for setting in ({"header": "no", "quoting": None}, {"header": None, "quoting": "some"}):
        with pytest.raises(UserError, match="Change"):
            check(setting, rules)


@pytest.mark.parametrize(("result", "shown"), [
    ({"text": "", "label": None, "score": None}, "no label\n"),
    ({"text": "", "label": None, "guess": None, "score": None, "probabilities": {}}, "no label\n"),
])  # fmt: skip
def test_a_text_of_nothing_is_shown_without_a_label(
    result: dict[str, Any], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labelling.show_result(result)
    assert capsys.readouterr().out == shown


def test_a_single_text_of_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(labelling.Predictor, "from_run", lambda *_, **__: Cleaner("A"))
    labelling.label(configured(f"run={tmp_path}", "text='<br/>'", verb="predict"))
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"text": "", "label": None, "score": None}
    assert shown.err == "warning: there is no text\n"


def test_a_text_without_a_label_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"text": "so so", "labels": [], "scores": {}}
    labelling.show_result(result)
    assert capsys.readouterr().out == "no label\n"
    target = {"name": "fun", "probability": 0.2, "values": [0.5, -0.9]}
    labelling.show_result({**result, "explanation": {"words": [[0, 2], [3, 5]], "unread": [], "targets": [target]}})
    assert "fun  0.2" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_lone_carriage_return_is_written_so_that_it_can_be_read(kind: str, predict: Predict, tmp_path: Path) -> None:
    rows = [{"text": "one\rtwo", "a\rb": "\r"}, {"text": "plain", "a\rb": ""}]
    predict("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows), output=f"out.{kind}")
    ours = [{"label": "A", "score": str(len(row["text"]))} for row in rows]
    theirs = [{"predicted_label": "B", "predicted_score": len(row["text"])} for row in rows]
    again = predict(f"out.{kind}", None, output="again.jsonl", run="B")
    assert again == [row | own | other for row, own, other in zip(rows, ours, theirs, strict=True)]
    assert (tmp_path / f"out.{kind}").read_text().replace("\t", ",").endswith("\nplain,,A,5\n"), "no needless quotes"
    predict("head.csv", '"text","a\rb"\n', output=f"empty.{kind}")
    assert (tmp_path / f"empty.{kind}").read_bytes().replace(b"\t", b",") == b'"text","a\rb","label","score"\n'


def test_two_processes_with_one_output_leave_one_whole_file(tmp_path: Path) -> None:
    path, own = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    own.write_text("of the user")
    with writer(str(path), "jsonl") as one, writer(str(path), "jsonl") as other:
        for i in range(2):
            one({"one": i})
            other({"other": i})
    assert read_jsonl(path) == [{"one": 0}, {"one": 1}]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.partial"]
    assert own.read_text() == "of the user"


def test_json_lines_are_json_whatever_the_input_and_the_terminal(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = predict("in.jsonl", '{"text": "a", "weight": NaN}\n')
    assert row["weight"] is None
    (row,) = predict("in.jsonl", '{"text": "a", "weights": [Infinity, 1]}\n', output="out.csv")
    assert row["weights"] == "[null, 1]"
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", errors="replace"))
    with writer(None, "jsonl") as write:
        write({"text": "naïve 日本 ł"})
    assert json.loads(written.getvalue()) == {"text": "naïve 日本 ł"}


def test_a_byte_order_mark_before_standard_input_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfone\r\ntwo")))
    source = read_records("-", "txt", labelling.sources.options({}, prefix=""))
    assert [text for text, _ in source.records] == ["one", "two"]


@pytest.mark.parametrize("source", ["in.txt", "-"])
def test_what_is_not_of_the_encoding_that_is_named_is_told(
    source: str, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"so"))))
    content = b"so" if source == "in.txt" else None
    with pytest.raises(UserError, match=r"not in the given encoding: .*Give its actual encoding"):
        predict(source, content, "encoding=utf-16")

"""``predict.py`` labels Parquet as training reads it, and nothing of it is lost in JSON lines and tables."""

import datetime
import decimal
import gzip
import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_labelling import Named, Predict, Tagger, predict

from thaw.errors import UserError
from thaw.labels import LabelSet

__all__ = ["predict"]  # the fixture

OURS = {"label": "A", "score": 3}


def parquet(**columns: Any) -> bytes:
    """A Parquet file of some columns."""
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


def test_values_of_every_type_are_kept(predict: Predict) -> None:
    content = parquet(
        text=["one", None],
        id=[7, None],
        big=pa.array([2**64 - 1, None], pa.uint64()),
        weight=[0.5, float("nan")],
        seen=[True, None],
        day=[datetime.date(2024, 2, 29), None],
        at=[datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC), None],
        exactly=pa.array([1, None], pa.timestamp("ns")),
        hour=[datetime.time(12, 30), None],
        took=[datetime.timedelta(hours=1), None],
        price=[decimal.Decimal("1.50"), None],
        word=[b"so", None],
        image=[b"\xff\xd8", None],
        kind=pa.array(["x", None]).dictionary_encode(),
        nested=[{"days": [datetime.date(2024, 2, 29)], "n": 1}, None],
        pairs=pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    )
    first, second = predict("in.parquet", content)
    assert first == {
        "text": "one", "id": 7, "big": 2**64 - 1, "weight": 0.5, "seen": True, "day": "2024-02-29",
        "at": "2024-02-29T12:30:00+00:00", "exactly": "1970-01-01T00:00:00.000000001", "hour": "12:30:00",
        "took": "1:00:00", "price": "1.50", "word": "so", "image": "/9g=", "kind": "x",
        "nested": {"days": ["2024-02-29"], "n": 1}, "pairs": [["a", 1]], **OURS,
    }  # fmt: skip
    assert second == dict.fromkeys(first)
    first, second = predict("in.parquet", content, output="out.csv")
    assert (first["id"], first["price"], first["nested"]) == ("7", "1.50", '{"days": ["2024-02-29"], "n": 1}')
    assert {second[name] for name in first if name not in (*OURS, "weight")} == {""}


def test_the_column_of_the_run_is_read_and_missing_ones_are_told(
    predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    content = parquet(title=["a"], text=["so"], body=["four"])
    assert predict("in.parquet", content, text_column="body")[0]["score"] == 4
    assert predict("in.parquet", content, "text_column=title", text_column="body")[0]["score"] == 1
    assert capsys.readouterr().err == ""
    assert predict("in.parquet", content, text_column="title_of_another_kind")[0]["score"] == 2
    assert "no column 'title_of_another_kind' as in the run; 'text' is read." in capsys.readouterr().err
    with pytest.raises(UserError, match=r"in\.parquet: no column with a usual name for the text; it has: a\. Set text"):
        predict("in.parquet", parquet(a=["so"]))


def test_names_of_results_that_are_taken_get_another(predict: Predict) -> None:
    (row,) = predict("in.parquet", parquet(text=["one"], label=[1]))
    assert row == {"text": "one", "label": 1, "predicted_label": "A", "score": 3}


def test_pairs_are_read_from_two_columns(predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    class Pairs(Named):
        def __init__(self, label: str) -> None:
            super().__init__(label)
            self.labels = LabelSet("sequence", (label,), (1,), pairs=True)

    content = parquet(premise=["so"], hypothesis=["it is"], id=[7])
    (row,) = predict("in.parquet", content, model=Pairs, text_column=["premise", "hypothesis"])
    assert row == {"premise": "so", "hypothesis": "it is", "id": 7, "label": "A", "score": len("so [SEP] it is")}
    content = parquet(premise=[None, "so"], hypothesis=["it is", None])
    rows = predict("in.parquet", content, model=Pairs, text_column=["premise", "hypothesis"])
    assert [row["score"] for row in rows] == [len(" [SEP] it is"), len("so [SEP] ")]
    assert "hold no text" not in capsys.readouterr().err
    content = parquet(premise=[None, "so"], hypothesis=["", "is"])
    blank, row = predict("in.parquet", content, model=Pairs, text_column=["premise", "hypothesis"])
    assert (blank["label"], blank["score"], row["label"]) == (None, None, "A")
    assert "1 of 2 rows hold no text, and get no label" in capsys.readouterr().err
    content = parquet(premise=["so", "so"], hypothesis=[["it", "is"], None])
    with pytest.raises(UserError, match=r"in\.parquet:1: .* is not a pair of texts\. Fix the row"):
        predict("in.parquet", content, model=Pairs, text_column=["premise", "hypothesis"])


def test_lists_of_words_get_a_tag_each(predict: Predict, tmp_path: Path) -> None:
    content = parquet(id=[7], tokens=[["New York", "won"]], ner_tags=[[0, 1]])
    (row,) = predict("in.parquet", content, model=Tagger)
    assert row["tokens"] == ["New York", "won"]
    assert row["tags"] == ["A", "A"]
    predict("in.parquet", content, output="out.conll", model=Tagger)
    assert (tmp_path / "out.conll").read_text() == "New York\t0\tA\nwon 1 A\n\n"


@pytest.mark.parametrize("ending", [".parquet", ".parquet.gz", ".data", "-"])
def test_the_format_may_be_said_and_the_file_zipped(
    ending: str, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = parquet(text=["one", "two"])
    settings = [] if ending.startswith(".parquet") else ["format=parquet"]
    if ending == "-":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        rows = predict("-", None, *settings)
    else:
        rows = predict(f"in{ending}", gzip.compress(content) if ending.endswith(".gz") else content, *settings)
    assert rows == [{"text": "one", **OURS}, {"text": "two", **OURS}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            parquet(text=[{"a": 1}]),
            ":1: the text is neither text nor words. Fix the row, leave its column out, set text_column",
        ),
        (parquet(text=[b"so", b"\xff"]), ":2: the text is neither text nor words."),
        (parquet(text=pa.array([b"so", b"\xff"]).view(pa.string())), ":2: not UTF-8 in 'text'. Fix the row"),
        (
            parquet(text=["so"] * 2, at=pa.array([0, 10**18], pa.timestamp("us"))),
            ":2: 'at' cannot be read: date value out of range. Fix the row, leave its column out",
        ),
        (b"no parquet", ": cannot be read as Parquet: "),
        (parquet(text=["so"])[:-9], ": cannot be read as Parquet: "),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_row(content: bytes, said: str, predict: Predict) -> None:
    with pytest.raises(UserError) as raised:
        predict("in.parquet", content)
    assert f"in.parquet{said}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_parquet_is_no_output(predict: Predict) -> None:
    with pytest.raises(
        UserError,
        match=r"out\.parquet: not a format that can be written\. Give \.jsonl, \.json, \.csv, \.tsv, \.xlsx or",
    ):
        predict("in.parquet", parquet(text=["one"]), output="out.parquet")


def test_no_rows_leave_the_names_of_the_columns(predict: Predict, tmp_path: Path) -> None:
    predict("in.parquet", parquet(text=pa.array([], pa.string()), id=[]), output="out.csv")
    assert (tmp_path / "out.csv").read_text() == "text,id,label,score\n"


def test_columns_of_one_name_are_all_kept(predict: Predict) -> None:
    written = io.BytesIO()
    pq.write_table(pa.table([["one"], [7], ["two"]], names=["text", "id", "id"]), written)
    (row,) = predict("in.parquet", written.getvalue())
    assert row == {"text": "one", "id": 7, "other_id": "two", **OURS}

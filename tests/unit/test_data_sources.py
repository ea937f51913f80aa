"""What a user brings is found, and what is wrong with it is said in one line: where, what, and what to do."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from thaw.data.layout import split_of
from thaw.data.lines import NOT_UTF8, open_lines
from thaw.data.sources import Source, load, load_path
from thaw.errors import UserError

CSV = "text,label\na,x\nb,y\n"
TXT = "a;x\nb;y\n"
JSONL = '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'
CONLL = "a B-X\nb O\n\nc O\n\n"


def fill(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" and isinstance(content, str) else data)


def parquet(*texts: str, label: int = 0) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": list(texts), "label": [label] * len(texts)}), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def texts(source: Source) -> dict[str, list[str]]:
    return {split: list(rows["text"]) for split, rows in source.splits.items()}


def complaint(path: Path | str, **data: Any) -> str:
    """The error of loading, which must be one line that ends in a remedy."""
    with pytest.raises(UserError) as raised:
        load({"path": str(path), **data})
    message = str(raised.value)
    assert "\n" not in message
    assert message.count(". ") >= 1
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.txt", "train"),
        ("training.csv", "train"),
        ("eng.train", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("emotion_val.csv", "validation"),
        ("valid.txt", "validation"),
        ("validation.jsonl.gz", "validation"),
        ("Dev.tsv", "validation"),
        ("eng.testa", "validation"),
        ("eng.testb", "test"),
        ("test.txt.gz", "test"),
        ("README.md", None),
        ("unsupervised-00000-of-00001.parquet", None),
        ("contest.csv", None),
    ],
)
def test_split_names(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("files", "data", "expected"),
    [
        pytest.param(
            {"train.csv": CSV, "test.csv": "text,label\nc,x\n", "README.md": "-", ".train.csv.swp": "-"},
            {},
            {"train": ["a", "b"], "test": ["c"]},
            id="train.csv, test.csv and a read-me",
        ),
        pytest.param({"train.csv": CSV, "notes.txt": "-"}, {}, {"all": ["a", "b"]}, id="one split is one file"),
        pytest.param(
            {
                "data/train-00000-of-00002.parquet": parquet("a", "b"),
                "data/train-00001-of-00002.parquet": parquet("c", label=1),
                "data/test-00000-of-00001.parquet": parquet("d"),
            },
            {},
            {"train": ["a", "b", "c"], "test": ["d"]},
            id="shards of the Hub",
        ),
        pytest.param(
            {
                "data/train-00000-of-00002-b42a775f407cee45.parquet": parquet("a"),
                "data/train-00001-of-00002-07a1b2c3d4e5f607.parquet": parquet("b"),
            },
            {},
            {"train": ["a", "b"]},
            id="shards of the Hub with hashes",
        ),
        pytest.param(
            {
                "split/train-00000-of-00001.parquet": parquet("a"),
                "split/test-00000-of-00001.parquet": parquet("b"),
                "unsplit/train-00000-of-00001.parquet": parquet("a", "b", "c"),
            },
            {"hub_config": "split"},
            {"train": ["a"], "test": ["b"]},
            id="a config of the Hub",
        ),
        pytest.param(
            {"train.txt": TXT, "val.txt": TXT, "train.jsonl.gz": JSONL, "validation.jsonl.gz": JSONL},
            {},
            {"train": ["a", "b"], "validation": ["a", "b"]},
            id="txt and jsonl side by side",
        ),
        pytest.param(
            {"train.txt": "c;x\nd;y\n", "val.txt": TXT, "train.jsonl.gz": JSONL},
            {"format": "txt"},
            {"train": ["c", "d"], "validation": ["a", "b"]},
            id="txt beside jsonl, chosen",
        ),
        pytest.param(
            {"eng.train": CONLL, "eng.testa": CONLL, "eng.testb": "d B-X\n", "eng.raw": "-"},
            {"task": "token"},
            {"train": [["a", "b"], ["c"]], "validation": [["a", "b"], ["c"]], "test": [["d"]]},
            id="CoNLL-2003 under its first names",
        ),
        pytest.param(
            {"train.txt": CONLL, "valid.txt": CONLL},
            {"format": "conll", "task": "token"},
            {"train": [["a", "b"], ["c"]], "validation": [["a", "b"], ["c"]]},
            id="CoNLL in txt files",
        ),
    ],
)
def test_folders(files: dict[str, Any], data: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    fill(tmp_path, files)
    assert texts(load_path(tmp_path, data)) == expected


@dataclass(frozen=True)
class Wrong:
    """A file with one bad row, where that is, and what is said of it."""

    name: str
    content: str | bytes
    place: str
    problem: str
    data: dict[str, Any]


def wrong(name: str, content: str | bytes, place: str, problem: str, **data: Any) -> Any:
    return pytest.param(Wrong(name, content, place, problem, data), id=f"{name}: {problem}")


WRONG_ROWS = [
    wrong("a.txt", TXT + "no separator\n", "a.txt:3", "no ';' between text and label"),
    wrong("a.txt", " ;x\n" + TXT, "a.txt:1", "the text is empty"),
    wrong("a.txt", TXT + "c;\n", "a.txt:3", "the label is missing"),
    wrong("a.txt", TXT.encode() + b"caf\xe9;x\n", "a.txt:3", f"{NOT_UTF8} at byte 4"),
    wrong("a.txt", TXT.encode() + b"caf\xe9;x\n", "a.txt:3", f"{NOT_UTF8} at byte 4", encoding="UTF8"),
    wrong("a.txt", "<br />;x\n" + TXT, "a.txt:1", "the text is empty", clean_html=True),
    wrong("a.csv", 'text,label\n"two\nlines",x\nb\nc,y\n', "a.csv:4", "1 field where the header has 2"),
    wrong("a.csv", CSV + "not, quoted,x\n", "a.csv:4", "3 fields where the header has 2"),
    wrong("a.csv", CSV + "c,\n", "a.csv:4", "the label is missing"),
    wrong("a.csv", CSV + ',"x"\n', "a.csv:4", "the text is empty"),
    wrong("a.csv", CSV + '"a" word,x\n', "a.csv:4", "the quotes do not match"),
    wrong("a.csv", CSV.encode() + b"caf\xe9,x\n", "a.csv:4", f"{NOT_UTF8} in field 1"),
    wrong("a.tsv", CSV.replace(",", "\t") + "c\n", "a.tsv:4", "1 field where the header has 2"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": "x"},\n', "a.jsonl:3", "not valid JSON: Extra data at column 28"),
    wrong("a.jsonl", '{"text": "a", "label": ["x"]}\n' * 2 + '{"text": "c", "label": null}\n', "a.jsonl:3",
          "the label is missing; [] says that a text has none"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": null}\n', "a.jsonl:3", "the label is missing"),
    wrong("a.jsonl", JSONL + "[1, 2]\n", "a.jsonl:3", "not a JSON object"),
    wrong("a.jsonl", JSONL + '{"text": "c"}\n', "a.jsonl:3", "the field 'label' is missing"),
    wrong("a.jsonl", JSONL + '{"text": null, "label": 1}\n', "a.jsonl:3", "the text is missing"),
    wrong("a.jsonl", JSONL + '{"text": 5, "label": 1}\n', "a.jsonl:3", "the text is of type int"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": NaN}\n', "a.jsonl:3", "the label is missing"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": {"a": 2}}\n', "a.jsonl:3", "the label is of type dict"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": ["x"]}\n', "a.jsonl:3", "the label is a list, unlike"),
    wrong("a.jsonl", JSONL + '{"text": "c \\ud83d", "label": "x"}\n', "a.jsonl:3", "half of a character"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": ' + "1" * 5000 + "}\n", "a.jsonl:3", "not readable as JSON"),
    wrong("a.jsonl", JSONL + '{"text": "c", "label": ' + "[" * 100_000 + "\n", "a.jsonl:3", "not readable as JSON"),
    wrong("a.conll", CONLL + "d O\ne\n\n", "a.conll:7", "1 column where the first line has 2"),
    wrong("a.conll", CONLL + "New York B-LOC\n", "a.conll:6", "3 columns where the first line has 2"),
    wrong("a.conll", CONLL.replace(" ", "\t") + "\u00a0\tO\n", "a.conll:6", "the word is empty"),
    wrong("a.conll", CONLL.encode() + b"\xff O\n", "a.conll:6", f"{NOT_UTF8} at byte 1"),
    wrong("a.jsonl", '{"text": ["a"], "label": ["O"]}\n' * 2 + '{"text": ["a", "b"], "label": ["O"]}\n', "a.jsonl:3",
          "1 tag for 2 words"),
    wrong("a.jsonl", '{"text": ["a"], "label": ["O"]}\n' * 2 + '{"text": [" "], "label": ["O"]}\n', "a.jsonl:3",
          "a word is empty"),
]  # fmt: skip


def test_damaged_rows_of_parquet_are_left_out_however_many_there_are(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"so"] * 4 + [b"\xff"] * 12).view(pa.string())
    pq.write_table(pa.table({"text": texts, "label": ["joy"] * 16}), tmp_path / "a.parquet")
    source = load_path(tmp_path / "a.parquet", {"on_bad_row": "skip"})
    assert (len(source.splits["all"]), len(source.skipped)) == (4, 12)


def test_a_byte_order_mark_says_more_than_the_setting(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nschön,joy\n", encoding="utf-8-sig")
    assert load_path(tmp_path / "a.csv", {"encoding": "cp1252"}).splits["all"]["text"][:] == ["schön"]


def test_a_file_in_another_encoding_is_not_taken_for_one_with_damaged_rows(tmp_path: Path) -> None:
    rows = [f"{'schön' if i % 2 else 'so'},joy\n" for i in range(22)]
    path = tmp_path / "a.csv"
    path.write_bytes("".join(["text,label\n", *rows[:20]]).encode("cp1252"))
    assert len(load_path(path, {"on_bad_row": "skip"}).splits["all"]) == 10
    path.write_bytes("".join(["text,label\n", *rows]).encode("cp1252"))
    said = r"a\.csv: 11 of 22 rows are not UTF-8: .* in another encoding\. Say which: data\.encoding=cp1252, say"
    with pytest.raises(UserError, match=said):
        load_path(path, {"on_bad_row": "skip"})


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_a_wrong_row_is_an_error_or_skipped(case: Wrong, tmp_path: Path) -> None:
    fill(tmp_path, {case.name: case.content})
    message = complaint(tmp_path / case.name, **case.data)
    assert message.startswith(f"{tmp_path}/{case.place}: {case.problem}")
    assert message.endswith("leave such rows out: data.on_bad_row=skip.")

    source = load_path(tmp_path / case.name, {**case.data, "on_bad_row": "skip"})
    assert len(source.splits["all"]) == 2
    ((split, place, problem),) = source.skipped
    assert (split, place) == ("all", f"{tmp_path}/{case.place}")
    assert problem.startswith(case.problem)


def test_a_wrong_text_of_a_folder_is_named_by_its_file(tmp_path: Path) -> None:
    fill(tmp_path, {"train/pos/0_9.txt": "a", "train/neg/0_1.txt": "b", "train/neg/10_2.txt": " "})
    assert complaint(tmp_path).startswith(f"{tmp_path}/train/neg/10_2.txt: the text is empty.")


def damaged(path: Path) -> bytes:
    whole = bytearray(path.read_bytes())
    whole[10:28] = b"\xff" * 18
    return bytes(whole)


@pytest.mark.parametrize(
    ("name", "break_it", "said"),
    [
        ("a.csv", lambda path: None, "no such file or folder"),
        ("a.csv", lambda path: b"", "no rows"),
        ("a.csv", lambda path: b"text,label\n", "no rows"),
        ("a.txt", lambda path: b"\n\n", "no rows"),
        ("a.txt.gz", lambda path: path.read_bytes()[:-12], "cannot be read: Compressed file ended"),
        ("a.txt.gz", lambda path: b"a;x\n", "cannot be read: Not a gzipped file"),
        ("a.txt.gz", damaged, "the gzip data is damaged"),
        ("a.parquet", lambda path: b"", "cannot be read as Parquet"),
        ("a.parquet", lambda path: b"no parquet", "cannot be read as Parquet"),
        ("a.parquet", damaged, "cannot be read as Parquet"),
        ("a.doc", lambda path: b"PK", "the format is not clear from the name"),
        ("a.xlsx", lambda path: b"PK", "cannot be read as an Excel workbook: File is not a zip file. Save it again"),
        ("a.XLS", lambda path: b"", "a workbook of a kind that is not read. Save it as .xlsx or CSV (UTF-8)."),
        ("a.csv", lambda path: "text,läbel\n".encode("latin-1"), ":1: the header: not UTF-8 in field 2. Say what"),
        ("a.csv", lambda path: CSV.encode("utf-16"), "not UTF-8 but UTF-16. Set data.encoding=utf-16"),
        ("a.csv", lambda path: b"\xfe\xff" + CSV.encode("utf-16-be"), "not UTF-8 but UTF-16. Set data.encoding=utf-16"),
        ("a.csv", lambda path: b"text,label\ra,x\r", "its lines end in \\r alone. Save it"),
        (
            "a.csv",
            lambda path: b"PK\x03\x04workbook",
            ": an archive or workbook, not text. Name a workbook .xlsx.",
        ),
        ("a.csv", lambda path: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ": an archive or workbook, not text."),
        (
            "a.json",
            lambda path: b'[{"text": "a",\n"label": "\xe9"}]',
            ":2: not UTF-8 at byte 11 of the line. Fix the line",
        ),
        ("a.csv", lambda path: b"PAR1\x15\x04\x15\r", ": Parquet, not text. Set data.format=parquet"),
        ("a.csv", lambda path: b"body,queue\na,x\n", "no column with a usual name for the label; it has: body, queue"),
        ("a.csv", lambda path: b"Nona,note\n1,a\n", "no column with a usual name for the text; it has: Nona, note"),
        ("a.csv", lambda path: b"id,text\n1,a\n", "no column with a usual name for the label; it has: id, text"),
        ("a.jsonl", lambda path: b'{"text": "a"}\n', ":1: no column with a usual name for the label"),
        ("a.conll", lambda path: b"a\nb\n", ":1: 1 column, so none for the label"),
        ("a.csv", lambda path: CSV.encode() + b'"open,x\nc,y\nd,x\n', ":4: the quotes that open here do not match"),
        ("a.csv", lambda path: CSV.encode() + b'"open,x\nc,y\n"d, e",x\n', ":4: the quotes that open here do not"),
    ],
)
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_a_file_that_cannot_be_right_is_an_error(
    name: str, break_it: Callable[[Path], bytes | None], said: str, on_bad_row: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    fill(tmp_path, {name: parquet("a", "b") if name.endswith(".parquet") else TXT * 100})
    content = break_it(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    message = complaint(path, on_bad_row=on_bad_row)
    assert message.startswith(f"{path}{said}" if said.startswith(":") else f"{path}: {said}")


def test_a_file_that_cannot_be_opened_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        next(open_lines(tmp_path))
    assert str(raised.value) == f"{tmp_path}: cannot be read: Is a directory. Check its permissions, or copy it again."


@pytest.mark.parametrize(
    ("files", "data", "said"),
    [
        ({".hidden/train.csv": CSV}, {}, "no split train; it holds: .hidden."),
        ({"README.md": "-", "some.csv": CSV}, {}, "no split train; it holds: README.md, some.csv."),
        ({"test.csv": CSV}, {}, "no split train; it holds: test.csv."),
        ({"train.csv": CSV}, {"format": "jsonl"}, "no split train in the format jsonl; it holds: train.csv."),
        ({"train.csv": CSV, "test.tsv": CSV}, {}, "test.tsv has another format than train.csv."),
        ({"train.csv": CSV, "train.csv.gz": CSV}, {}, "several files for train: train.csv, train.csv.gz."),
        ({"train.csv": CSV, "dev.csv": CSV, "val.csv": CSV}, {}, "several files for validation: dev.csv, val.csv."),
        (
            {"a/train.parquet": parquet("a"), "b/train.parquet": parquet("a", "b")},
            {},
            "several files for train: a/train.parquet, b/train.parquet.",
        ),
        (
            {"v1/train.parquet": parquet("a"), "v2/train.parquet": parquet("a", "b")},
            {},
            "several files for train: v1/train.parquet, v2/train.parquet.",
        ),
        (
            {
                "data/train-00000-of-00001-b42a775f407cee45.parquet": parquet("a"),
                "data/train-00000-of-00001.parquet": parquet("b"),
            },
            {},
            "several files for train: data/train-00000-of-00001-b42a775f407cee45.parquet, data/train-00000-of-00001",
        ),
    ],
)
def test_a_folder_that_is_not_clear_is_an_error(
    files: dict[str, Any], data: dict[str, Any], said: str, tmp_path: Path
) -> None:
    fill(tmp_path, files)
    assert complaint(tmp_path, **data).startswith(f"{tmp_path}: {said}")


def test_splits_of_unlike_form_are_told_apart(tmp_path: Path) -> None:
    fill(tmp_path, {"train.jsonl": JSONL, "test.jsonl": '{"text": "c", "label": ["x"]}\n'})
    assert f"{tmp_path}/test.jsonl:1: the label is a list, unlike in earlier rows" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("columns", "data", "twice"),
    [
        ("text,label,label", {}, "label"),
        ("text,text,label", {}, "text"),
        ("body,text,queue,queue", {"label_column": "queue"}, "queue"),
        ("text,label,label", {"label_column": 2}, "label"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_of_two_columns_of_one_name_none_is_chosen(
    kind: str, columns: str, data: dict[str, Any], twice: str, tmp_path: Path
) -> None:
    row = ",".join("abcd"[: columns.count(",") + 1])
    content = f"{columns}\n{row}\n"
    path = tmp_path / f"a.{kind}"
    fill(tmp_path, {path.name: content.replace(",", "\t") if kind == "tsv" else content})
    assert complaint(path, **data) == f"{path}: several columns are named {twice!r}. Rename all but one of them."


def test_columns_of_one_name_may_stand_beside_those_that_are_read(tmp_path: Path) -> None:
    fill(tmp_path, {"a.csv": "id,id,text,label\n1,2,a,x\n"})
    assert texts(load_path(tmp_path / "a.csv", {}))["all"] == ["a"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"text_column": "body"}, "no column 'body'; it has: text, label. Set data.text_column."),
        ({"label_column": 7}, "no column 7; it has: text, label. Set data.label_column."),
        ({"header": False}, "it has: 0, 1. Set data.text_column. With a header line: data.header=true."),
        ({"text_column": "label"}, "the column 'label' is both text and label."),
    ],
)
def test_settings_that_do_not_fit_are_errors(data: dict[str, Any], said: str, tmp_path: Path) -> None:
    fill(tmp_path, {"a.csv": CSV})
    assert said in complaint(tmp_path / "a.csv", **data)


def test_columns_beyond_those_of_conll_are_errors(tmp_path: Path) -> None:
    fill(tmp_path, {"a.conll": CONLL})
    assert "a.conll:1: 2 columns, so none for the label." in complaint(tmp_path / "a.conll", label_column=3)
    assert "a.conll:1: column 1 is both text and label." in complaint(tmp_path / "a.conll", text_column=1)


@pytest.mark.parametrize("column", ["text_column", "label_column"])
def test_a_name_for_a_column_of_conll_is_an_error(column: str, tmp_path: Path) -> None:
    fill(tmp_path, {"a.conll": CONLL})
    said = f"data.{column}=word: CoNLL columns have no names. Give a position: 0 is the first, -1 the last."
    assert complaint(tmp_path / "a.conll", **{column: "word"}) == said
    assert texts(load_path(tmp_path / "a.conll", {"text_column": -2, "label_column": 1}))["all"] == [["a", "b"], ["c"]]


def test_nothing_to_load_is_an_error() -> None:
    with pytest.raises(UserError, match=r"data\.path is missing\. Say where the data is"):
        load({"path": None, "format": "csv"})


def test_when_all_rows_are_skipped_the_reason_is_told(tmp_path: Path) -> None:
    fill(tmp_path, {"a.txt": "one\ntwo\n"})
    message = complaint(tmp_path / "a.txt", on_bad_row="skip")
    assert "a.txt: no rows; all 2 were skipped, the last since no ';' between text and label." in message


@pytest.mark.parametrize(
    ("written", "separator", "label"),
    [
        ("1", None, "1"),
        ("1.0", None, "1"),
        ('"1"', None, "1"),
        ('"1.0"', None, "1"),
        ("0.5", None, "0.5"),
        ("true", None, "True"),
        ('" joy "', None, "joy"),
        ('"a|b"', None, "a|b"),
        ('"a| b|"', "|", ["a", "b"]),
        ('""', "|", []),
        ("3", "|", ["3"]),
        ('["a", 2.0]', None, ["a", "2"]),
        ("[]", None, []),
    ],
)
def test_labels_become_text(written: str, separator: str | None, label: Any, tmp_path: Path) -> None:
    fill(tmp_path, {"a.jsonl": f'{{"text": "a", "label": {written}}}\n'})
    source = load_path(tmp_path / "a.jsonl", {"label_separator": separator})
    assert source.splits["all"][0]["label"] == label


def test_long_lines_null_bytes_and_what_files_begin_with_are_text(tmp_path: Path) -> None:
    own = ["word " * 100_000, "a\x00b", "PAR1 is a gene", "PK\x03\x04"]
    rows = [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(own)]
    fill(tmp_path, {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    fill(tmp_path, {"a.csv": "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)})
    for name in ("a.jsonl", "a.csv"):
        assert texts(load_path(tmp_path / name, {}))["all"] == [row["text"] for row in rows]


# The Hub, without the network: what `datasets.load_dataset` gives is all that is known of it.


def hub(monkeypatch: pytest.MonkeyPatch, **splits: dict[str, list[Any]]) -> Source:
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    found = {name: datasets.Dataset.from_dict(rows, features=features) for name, rows in splits.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(found))
    return load({"hub": "owner/name"})


def test_splits_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    source = hub(
        monkeypatch,
        test_extra={"text": ["e"], "label": [0]},
        unsupervised={"text": ["u"], "label": [-1]},
        train={"text": ["a", "b"], "label": [1, 0]},
        test={"text": ["c"], "label": [1]},
    )
    assert texts(source) == {"train": ["a", "b"], "test": ["c"]}
    assert source.names == ["neg", "pos"]
    assert source.splits["train"][0] == {"text": "a", "label": "pos", "line": 1, "file": 0}
    assert source.place("train", 0, 1) == "owner/name/train:1"


def test_a_test_split_whose_labels_are_kept_back_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {"text": ["c", "d"], "label": [-1, -1]}
    source = hub(
        monkeypatch, train={"text": ["a"], "label": [1]}, validation={"text": ["b"], "label": [0]}, test=hidden
    )
    assert set(source.splits) == {"train", "validation"}


def test_the_hub_without_a_training_split_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"data\.hub=owner/name: no split train; it has: test\."):
        hub(monkeypatch, test={"text": ["c"], "label": [1]})


@pytest.mark.parametrize(("task", "sample"), [("token", "conll2003_sample"), (None, "emotion_sample")])
def test_without_the_hub_a_sample_of_the_same_task_is_named(
    task: str | None, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=rf"no Hub \(model=minilm data={sample}\)"):
        load({"hub": "owner/name", "task": task})


def test_html_is_cleaned_before_anything_looks_at_the_text(tmp_path: Path) -> None:
    fill(tmp_path, {"a.txt": "a<br />b &amp; c;x\n"})
    assert texts(load_path(tmp_path / "a.txt", {"clean_html": True}))["all"] == ["a b & c"]
    assert texts(load_path(tmp_path / "a.txt", {}))["all"] == ["a<br />b &amp; c"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf_8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.txt", "a.jsonl", "a.conll"])
def test_text_of_another_encoding_is_read(name: str, encoding: str, tmp_path: Path) -> None:
    content = {
        "a.csv": 'text,label\r\n"Grüße,\r\naus Köln",x\r\n',
        "a.tsv.gz": "text\tlabel\nGrüße, aus Köln\tx\n",
        "a.txt": "Grüße, aus Köln;x\n",
        "a.jsonl": '{"text": "Grüße, aus Köln", "label": "x"}\n',
        "a.conll": "Grüße, O\naus O\nKöln B-LOC\n",
    }[name].encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (row,) = load({"path": str(tmp_path / name), "encoding": encoding}).splits["all"]
    text = row["text"] if isinstance(row["text"], str) else " ".join(row["text"])
    assert " ".join(text.split()) == "Grüße, aus Köln"


def test_text_that_is_not_of_its_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV.encode() + "é,x\n".encode("cp1252"))
    assert "a.csv: not in the given encoding: ordinal not in range(128). Give" in complaint(
        tmp_path / "a.csv", encoding="ascii"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_lone_carriage_return_spoils_its_own_row_only(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\na,x\nb\rc,y\nd,z\n")
    data = {"path": str(tmp_path / "a.csv"), "encoding": encoding}
    assert "a.csv:3: a lone \\r, without quotes. Fix the row" in complaint(**data)
    assert load({**data, "on_bad_row": "skip"}).splits["all"]["text"][:] == ["a", "d"]


def test_of_a_folder_only_the_split_that_is_needed_is_read(tmp_path: Path) -> None:
    """Whatever is wrong with the others."""
    fill(
        tmp_path, {"test.csv": "text,label\na,x\n", "train.csv": "text,label\nb\n", "train_old.csv": "", "val.txt": ""}
    )
    assert texts(load_path(tmp_path, {}, only="test")) == {"test": ["a"]}
    with pytest.raises(UserError, match=r"several files for train|another format"):
        load_path(tmp_path, {})


def test_files_of_a_pattern_are_one_set_of_rows(tmp_path: Path) -> None:
    fill(tmp_path, {"2025-12.csv": CSV, "2026-01.csv": "text,label\nc,x\n", "2026-02.csv": "text,label\nd,y\n"})
    source = load({"path": f"{tmp_path}/2026-*.csv"})
    assert texts(source) == {"all": ["c", "d"]}
    assert source.place("all", 1, 2) == f"{tmp_path}/2026-02.csv:2"
    assert "no file matches. Check data.path" in complaint(f"{tmp_path}/2027-*.csv")
    # A name comes before the pattern that it may also be.
    fill(tmp_path, {"[a].csv": CSV, "a.csv": "text,label\nd,y\n"})
    assert texts(load({"path": f"{tmp_path}/[a].csv"})) == {"all": ["a", "b"]}


def test_a_pattern_does_not_mix_splits(tmp_path: Path) -> None:
    fill(tmp_path, {"train.csv": CSV, "test.csv": CSV})
    assert "test.csv is named for test, and others are not. Give their folder" in complaint(f"{tmp_path}/*.csv")
    (tmp_path / "train.csv").rename(tmp_path / "tickets.csv")
    assert "test.csv is named for test, and others are not" in complaint(f"{tmp_path}/*.csv")


def test_validation_and_test_may_be_files_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path, {"tickets.csv": CSV, "gold.jsonl": JSONL, "checked_a.csv": CSV, "checked_b.csv": CSV})
    path = str(tmp_path / "tickets.csv")
    source = load({"path": path, "test_path": f"{tmp_path}/gold.jsonl", "validation_path": f"{tmp_path}/checked_?.csv"})
    assert texts(source) == {"train": ["a", "b"], "validation": ["a", "b", "a", "b"], "test": ["a", "b"]}
    assert texts(load({"path": path, "test_path": f"{tmp_path}/gold.jsonl"})) == {
        "train": ["a", "b"],
        "test": ["a", "b"],
    }
    assert "gone.csv: no such file or folder. Check data.test_path." in complaint(path, test_path="gone.csv")


def test_a_test_split_apart_stands_for_that_of_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"data/train.csv": CSV, "data/test.csv": CSV, "gold.csv": "text,label\nc,x\n"})
    source = load({"path": f"{tmp_path}/data", "test_path": f"{tmp_path}/gold.csv"})
    assert texts(source) == {"train": ["a", "b"], "test": ["c"]}
    assert source.place("test", 0, 2) == f"{tmp_path}/gold.csv:2"
    fill(tmp_path, {"other/train.csv": CSV, "other/test.jsonl": "broken"})
    assert texts(load({"path": f"{tmp_path}/other", "test_path": f"{tmp_path}/gold.csv"}))["test"] == ["c"]


def test_no_file_is_of_two_splits(tmp_path: Path) -> None:
    fill(tmp_path, {"2026-01.csv": CSV, "2026-gold.csv": CSV})
    message = complaint(f"{tmp_path}/2026-*.csv", test_path=f"{tmp_path}/2026-gold.csv")
    assert "2026-gold.csv: data.path and data.test_path name the same. Leave it out of one of them." in message


def test_a_split_apart_may_have_another_format(tmp_path: Path) -> None:
    fill(tmp_path, {"tickets.csv": CSV, "gold.jsonl": JSONL, "gold.dat": CSV, "folder/a.csv": CSV})
    data = {"path": f"{tmp_path}/tickets.csv", "format": "csv"}  # as data=csv states it
    for name in ("gold.jsonl", "gold.dat"):
        assert texts(load({**data, "test_path": f"{tmp_path}/{name}"}))["test"] == ["a", "b"]
    message = complaint(tmp_path / "tickets.csv", test_path=f"{tmp_path}/folder")
    assert "folder: a folder without one for each label. Give a file" in message

"""Each file format gives the rows that stand in it, whatever the machine that wrote it did to line ends and quotes."""

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thaw.data import formats
from thaw.data.formats import READERS
from thaw.data.rows import Bad, Options, Row
from thaw.data.sources import load_path
from thaw.data.tables import SAMPLE, own_delimiter, read_table
from thaw.errors import UserError

ROWS = [
    ("the sun is out; i am happy", "joy"),
    ('she said "no", and left', "anger"),
    ("naïve, 😀 and a \x85 in the middle\u2028here", "joy"),
    ("it is dark", "fear"),
]
WRITTEN = {
    "txt": "".join(f"{text};{label}\n" for text, label in ROWS),
    "csv": "label,text,id\n" + "".join('{},"{}",7\n'.format(label, text.replace('"', '""')) for text, label in ROWS),
    "tsv": "text\tlabel\n" + "".join('"{}"\t{}\n'.format(text.replace('"', '""'), label) for text, label in ROWS),
    "jsonl": "".join(json.dumps({"label": label, "text": text}) + "\n" for text, label in ROWS),
    "json": json.dumps([{"label": label, "text": text} for text, label in ROWS], indent=2) + "\n",
}  # fmt: skip


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


def write_parquet(path: Path, columns: dict[str, Any], classes: list[str] | None) -> Path:
    """As the datasets library writes it, with the names of the classes where they are given."""
    import datasets

    label = datasets.ClassLabel(names=classes) if classes else datasets.Value("string")
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    plain = path.parent / "plain"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(plain)
    return write(path, plain.read_bytes())


def read(path: Path, kind: str, **options: Any) -> list[Row | Bad]:
    return list(READERS[kind](path, Options(**options)))


def found(path: Path, **data: Any) -> list[tuple[Any, Any]]:
    """Text and label of every row of a single file."""
    rows = load_path(path, data).splits["all"]
    return [(row["text"], row["label"]) for row in rows]


@pytest.mark.parametrize("ending", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("change", ["as it is", "CRLF and a byte order mark", "blank lines"])
@pytest.mark.parametrize("kind", WRITTEN)
def test_text_formats_give_the_rows_written(kind: str, change: str, ending: str, tmp_path: Path) -> None:
    content = WRITTEN[kind]
    if change == "CRLF and a byte order mark":
        content = "\ufeff" + content.replace("\n", "\r\n")
    if change == "blank lines":
        content = content.replace("\n", "\n\n") + "  \n"
    assert found(write(tmp_path / f"some.{kind}{ending}", content)) == ROWS


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("classes", [None, ["joy", "anger", "fear"]])
def test_parquet_gives_the_rows_written(classes: list[str] | None, ending: str, tmp_path: Path) -> None:
    labels = [label if classes is None else classes.index(label) for _, label in ROWS]
    columns = {"text": [text for text, _ in ROWS], "label": labels}
    path = write_parquet(tmp_path / f"some.parquet{ending}", columns, classes)
    source = load_path(path, {})
    assert [(row["text"], row["label"]) for row in source.splits["all"]] == ROWS
    assert source.names == classes


def test_parquet_knows_the_names_of_tags(tmp_path: Path) -> None:
    import datasets

    names = ["O", "B-PER", "I-PER"]
    tags = datasets.List(datasets.ClassLabel(names=names))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    data = datasets.Dataset.from_dict({"tokens": [["Anna", "sings"]], "ner_tags": [[1, 0]]}, features=features)
    data.to_parquet(tmp_path / "some.parquet")
    source = load_path(tmp_path / "some.parquet", {"task": "token"})
    assert source.splits["all"][0]["label"] == ["B-PER", "O"]
    assert source.names == names


def test_bytes_of_parquet_are_text_where_they_are_utf_8(tmp_path: Path) -> None:
    undecodable = pa.array([b"so", b"\xff", b"ja"]).view(pa.string())
    pq.write_table(pa.table({"label": [b"x", b"x", b"y"], "text": undecodable}), tmp_path / "some.parquet")
    rows = [Row(1, "so", "x"), Bad(2, "not UTF-8 in 'text'"), Row(3, "ja", "y")]
    assert read(tmp_path / "some.parquet", "parquet") == rows


def test_parquet_is_read_a_batch_at_a_time(tmp_path: Path) -> None:
    """Though it is written as a single row group."""
    texts = [os.urandom(500).hex() for _ in range(formats.BATCH * 20)]
    table = pa.table({"text": texts, "label": ["x"] * len(texts)})
    pq.write_table(table, tmp_path / "some.parquet")
    rows = formats.read_parquet(tmp_path / "some.parquet", Options())
    before = pa.total_allocated_bytes()
    assert next(rows) == Row(1, texts[0], "x")
    assert pa.total_allocated_bytes() - before < table.nbytes / 2
    assert [row.line for row in rows] == list(range(2, len(texts) + 1))


def test_lines_are_counted_in_the_file_not_in_rows(tmp_path: Path) -> None:
    csv = 'text,label\r\n"two\r\nlines, ""quoted""",joy\r\n\r\nplain,fear\r\n"three\n\n",joy\r\nlast,fear\r\n'
    rows = read(write(tmp_path / "some.csv", csv), "csv")
    assert rows == [
        Row(2, 'two\r\nlines, "quoted"', "joy"),  # as the places of entities count it
        Row(5, "plain", "fear"),
        Row(6, "three\n\n", "joy"),
        Row(9, "last", "fear"),
    ]
    jsonl = '\n{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n'
    assert [row.line for row in read(write(tmp_path / "some.jsonl", jsonl), "jsonl")] == [2, 4]


@pytest.mark.parametrize("quoting", ["minimal", "all", "nonnumeric"])
def test_quoting_never_changes_a_value(quoting: str, tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", '"text","label"\n"1, 2 and 3",1\n"4",0\n')
    assert found(path, quoting=quoting) == [("1, 2 and 3", "1"), ("4", "0")]


def test_quotes_can_be_plain_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "some.tsv", 'text\tlabel\n"never closed\tjoy\n5" wide\tfear\n')
    assert found(path, quoting="none") == [('"never closed', "joy"), ('5" wide', "fear")]


def test_csv_may_have_semicolons_as_excel_writes_them(tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", '\ufefftext;label\r\n"one; two";joy\r\nthree, four;fear\r\n')
    assert found(path) == [("one; two", "joy"), ("three, four", "fear")]


@pytest.mark.parametrize("first", ["sep=;", '"SEP=;"'])
@pytest.mark.parametrize("header", [True, False])
def test_the_line_with_the_separator_and_empty_rows_of_excel_are_no_rows(
    first: str, header: bool, tmp_path: Path
) -> None:
    names = "text;label;note\r\n" if header else ""
    content = f"\ufeff{first}\r\n;;\r\n{names}a, b;joy;\r\n;;\r\nbad\r\nc;fear;x\r\n;;\r\n\r\n ;;\r\n"
    rows = read(write(tmp_path / "some.csv", content), "csv", header=header, text_column=0, label_column=1)
    before = 3 if header else 2
    where = "header" if header else "first line"
    assert rows[0 if header else 1 :] == [
        Row(before + 1, "a, b", "joy"),
        Row(before + 2, "", ""),
        Bad(before + 3, f"1 field where the {where} has 3"),
        Row(before + 4, "c", "fear"),
    ]


def test_only_the_first_line_of_a_csv_file_states_its_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", "text,label\nsep=;,joy\n")
    assert found(path) == [("sep=;", "joy")]
    assert found(write(tmp_path / "some.csv", "sep=^\ntext^label\na,b;c^joy\n")) == [("a,b;c", "joy")]


@pytest.mark.parametrize("separator", ["|", "\t"])
def test_csv_may_have_other_separators(separator: str, tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", f"text{separator}label\none, two{separator}joy\n")
    assert found(path) == [("one, two", "joy")]


@pytest.mark.parametrize(
    ("lines", "header", "delimiter"),
    [
        (["Nr;Name, Vorname;Text", "1;Noll, Eva;so", "2;Ende, Ida;ja"], True, ";"),
        (["Nr;Name, Vorname;Text", "1;Noll, Eva;so, it, is", "2;Ende;ja"], True, ";"),
        (["Nr;Name, Vorname;Text"], True, ";"),
        (["id,text;or not,label", "1,so;it,joy", "2,fine,fear"], True, ","),
        (["id,label|queue", "1,a|b", "2,c|d"], True, ","),
        (["id,text,label|queue", "1,so", "2,c|d,x"], True, ","),
        (["text;label", "so, it;joy", "fine;joy;what, bad"], True, ";"),
        (['text,"a;b;c"', '"so', "it;is\n;", '",joy'], True, ","),
        (["text", "so; it", "ja; it"], True, ","),
        (["text;label", '"so;joy', "it;joy"], True, ";"),
        (["so; it is", "no", "fine"], False, ","),
        (["so; it is"], False, ","),
        (["so; it is;joy", "no;joy"], False, ","),
        (["1;Noll, Eva;so", "2;Ende;ja"], False, ";"),
        (["1;Noll, Eva;so", "2;Ende;ja", "bad", "3;Berg, Jo;no"], False, ";"),
        (["so, it is", "fine"], False, ","),
    ],
)
def test_the_delimiter_of_csv_divides_the_first_lines_evenly(lines: list[str], header: bool, delimiter: str) -> None:
    assert own_delimiter([line + "\n" for line in lines], Options(header=header)) == delimiter


def test_a_column_of_texts_with_semicolons_is_not_divided(tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", "so; it is\nfine\n")
    columns, records, _ = read_table(path, Options(header=False), ",")
    assert (columns, [record for _, record in records]) == (["0"], [["so; it is"], ["fine"]])
    path = write(tmp_path / "some.csv", "Nr;Name, Vorname;Text;label\n1;Noll, Eva;so;joy\n")
    assert found(path) == [("so", "joy")]
    # A quoted field that goes on after the lines that are looked at says nothing.
    path = write(tmp_path / "some.csv", 'label,text\njoy,"a;b;c\n' + "\n" * 2 * SAMPLE + 'x"\n')
    assert found(path)[0][1] == "joy"


def test_columns_go_by_usual_name_by_given_name_or_by_position(tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", "Sentence,Body,Label\na,b,c\n")
    assert read(path, "csv") == [Row(2, "a", "c")]
    assert read(path, "csv", text_column="Body", label_column=0) == [Row(2, "b", "a")]
    assert read(path, "csv", text_column=1, label_column=2, header=False)[1] == Row(2, "b", "c")


def test_txt_takes_another_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "some.txt", "a;b\t c \n")
    assert read(path, "txt", separator="\t") == [Row(1, "a;b", "c")]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("-DOCSTART- -X- -X- O\n\n{0} NN B-NP B-PER\nsings VB O O\n\nrain NN O O\n\n", id="four columns"),
        pytest.param("{0} B-PER\nsings O\n\nrain O\n", id="two columns"),
        pytest.param("{0}\tB-PER\nsings\tO\t\n \t \nrain\tO", id="tabs, a line of blanks, no last line end"),
        pytest.param("\n\n{0}  B-PER\n sings   O \n\n\n-DOCSTART-\n\nrain O\n\n\n", id="many blanks"),
        pytest.param("{0} B-PER\r\nsings O\r\n\r\nrain O\r\n", id="CRLF"),
    ],
)
@pytest.mark.parametrize("word", ["Anna", "10\u00a0000", "a\x85b"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_conll_columns(content: str, word: str, ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"some.conll{ending}", content.format(word))
    assert found(path) == [([word, "sings"], ["B-PER", "O"]), (["rain"], ["O"])]


def test_comments_around_sentences_of_conll_columns_are_none_of_their_words(tmp_path: Path) -> None:
    universal = (
        "# newdoc id = 1\n# sent_id = 0\n# text = Anna sings\n1\tAnna\tB-PER\n2\tsings\tO\n\n# newpar\n1\t#\tO\n"
    )
    rows = read(write(tmp_path / "some.conll", universal), "conll", text_column=1)
    assert rows == [Row(4, ["Anna", "sings"], ["B-PER", "O"]), Row(8, ["#"], ["O"])]
    plain = "# id 1\tdomain=en\nEU _ _ B-ORG\n# _ _ O\n\n# _ a=b O\n"
    assert read(write(tmp_path / "other.conll", plain), "conll") == [
        Row(2, ["EU", "#"], ["B-ORG", "O"]),
        Row(5, ["#"], ["O"]),
    ]
    documents = "#begin document (bc/cctv_0000); part 000\nEU B-ORG\n\n#end document\n#begin document (a)\n#begin O\n"
    assert read(write(tmp_path / "documents.conll", documents), "conll") == [
        Row(2, ["EU"], ["B-ORG"]),
        Row(6, ["#begin"], ["O"]),
    ]


def test_objects_of_a_json_array_are_numbered(tmp_path: Path) -> None:
    """Their lines would not do: pandas writes a single one."""
    content = '\n [\n{"text": "a",\n "label": "x"}, {"text": "b", "label": "y"},\n\n5, {"text": "c", "label": "x"}\n]\n'
    rows = read(write(tmp_path / "a.json", content), "jsonl")
    bad = Bad(3, "not a JSON object, as each row should be")
    assert rows == [Row(1, "a", "x"), Row(2, "b", "y"), bad, Row(4, "c", "x")]
    assert read(write(tmp_path / "none.json", "[ ]"), "jsonl") == []


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ('[{"text": "a", "label": "x"},\n', 1, "the array does not end"),
        ('[{"text": "a", "label": "x"}\n\n', 2, "the array does not end"),
        ("[", 1, "the array does not end"),
        ('[{"text": "a", "label": "x"},]', 1, "Expecting value"),
        ('[\n{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}]', 3, "a comma is missing between two objects"),
        ('[{"text": "a", "label": "x"},\n{"text": "b" "label": "y"}]', 2, "Expecting ',' delimiter"),
        ('[{"text": "a", "label": "x"},\n' + "[" * 100_000, 2, "recursion"),
        ('[{"text": "a", "label": "x"}]\n[{"text": "b", "label": "y"}]', 2, "something follows the end of the array"),
        ('[]\n{"text": "b", "label": "y"}', 2, "something follows the end of the array"),
    ],
)
def test_a_damaged_json_array_is_refused_as_a_whole(content: str, line: int, problem: str, tmp_path: Path) -> None:
    """What follows the damage would be lost, however bad rows are treated."""
    path = write(tmp_path / "a.json", content)
    with pytest.raises(UserError, match=rf"a\.json, line {line}: not valid JSON: .*{problem}.* one object a line"):
        load_path(path, {"on_bad_row": "skip"})


def test_json_lines_are_not_taken_for_conll_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "some.conll", '\n{"text": "Anna sings.", "entities": [[0, 4, "PER"]]}\n{"text": "so"}\n')
    with pytest.raises(UserError, match=r"some\.conll:2: JSON Lines, not columns\. Set data\.format=jsonl\."):
        read(path, "conll")


def test_conll_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "some.conll", "1 Anna NNP B-PER\n2 sings VB O\n")
    assert read(path, "conll", text_column=1, label_column=2) == [Row(1, ["Anna", "sings"], ["NNP", "VB"])]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_folder_layout_of_aclimdb(ending: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name, text in (("pos/2_9", "fine"), ("pos/10_7", "good\r\nfilm"), ("neg/0_1", "dull"), ("unsup/0_0", "?")):
            write(tmp_path / split / f"{name}.txt{ending}", f"{text}, {split}")
        (tmp_path / split / "urls_pos.txt").write_text("no text of the data")
    source = load_path(tmp_path, {})
    assert set(source.splits) == {"train", "test"}
    for split, rows in source.splits.items():
        expected = [("dull", "neg"), ("fine", "pos"), ("good\nfilm", "pos")]
        assert [(row["text"], row["label"]) for row in rows] == [(f"{text}, {split}", one) for text, one in expected]


@pytest.mark.parametrize(
    ("text", "label", "row"),
    [
        ("""['SOCCER', '-', "it's"]""", "['O', 'O', 'B-X']", (["SOCCER", "-", "it's"], ["O", "O", "B-X"])),
        ('["a", "b"]', "[0, 1]", (["a", "b"], [0, 1])),
        ("so it is", "['x', 'y']", ("so it is", ["x", "y"])),
        ("so it is", "[]", ("so it is", [])),
        ("['so']", "x", ("['so']", "x")),
        ("so", "[red]", ("so", "[red]")),
        ("['a' 'b']", "['O' 'O']", ("['a' 'b']", "['O' 'O']")),
    ],
)
def test_lists_in_the_cells_of_a_table_are_lists(text: str, label: str, row: tuple[Any, Any], tmp_path: Path) -> None:
    """As pandas and predict.py write them; Python would join the strings of an array of numpy."""
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), (text, label)])
    assert read(path, "csv") == [Row(2, *row)]

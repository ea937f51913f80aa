"""Entities marked by characters become words with tags."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from thaw.data.sources import load
from thaw.data.spans import tagged_words, word_spans
from thaw.errors import UserError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's E-404, (ok)!", "It ' s E - 404 , ( ok ) !"),
        ("  two\tblanks \n", "two blanks"),
        ("a漢字 b.", "a 漢 字 b ."),
        ("かなカナ㐀㐁\uf900\uf901", "か な カ ナ 㐀 㐁 \uf900 \uf901"),
        ("葛\U000e0100城市", "葛\U000e0100 城 市"),
        ("“Oslo”… so!\ufe0f", "“ Oslo ” … so !\ufe0f"),
        ("한국어 문장.", "한국어 문장 ."),
        ("I 😀👍🏽 it", "I 😀👍🏽 it"),
        (" ", ""),
        ("●Paris →Rome Adidas® ™", "● Paris → Rome Adidas ® ™"),
        ("$5 £3 5°C C++ A&B 4×4 m²", "$ 5 £ 3 5 ° C C + + A & B 4 × 4 m²"),
        ("🇩🇪Berlin ❤️ 5️⃣ e\u0301clair", "🇩🇪 Berlin ❤️ 5️⃣ e\u0301clair"),
        ("👨\u200d👩\u200d👧!", "👨\u200d👩\u200d👧 !"),
    ],
)
def test_words_end_at_blanks_punctuation_and_symbols(text: str, words: str) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == words.split()


def test_words_of_a_text_end_where_those_of_the_training_data_did() -> None:
    text = "See E-404 (ORA-00942), it's 3.5°C or x- -y, J. (U.S.) ok 7. "
    assert [text[start:end] for start, end in word_spans(text, "-.°")] == [
        "See", "E-404", "(", "ORA-00942", ")", ",", "it", "'", "s", "3.5°C", "or", "x", "-", "-", "y", ",",
        "J.", "(", "U.S.", ")", "ok", "7", ".",
    ]  # fmt: skip


def test_invisible_characters_are_inside_words_alone() -> None:
    text = "\ufeffRome \u200b, \u200bParis\u200b: Zwi\u00adschen\u00ad می\u200cخواهم"
    assert [text[start:end] for start, end in word_spans(text)] == [
        "Rome", ",", "Paris", ":", "Zwi\u00adschen", "می\u200cخواهم",
    ]  # fmt: skip


def read(folder: Path, *rows: dict[str, Any], **data: Any) -> list[tuple[str, str]]:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = load({"path": str(path), **data}).splits["all"]
    return [(" ".join(row["text"]), " ".join(row["label"])) for row in found]


TEXT = "Anna Lee left Oslo."
TAGGED = ("Anna Lee left Oslo .", "B-PER I-PER O B-LOC O")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            {"text": TEXT, "spans": [{"start": 14, "end": 18, "label": "LOC", "token_start": 3},
                                     {"start": 0, "end": 8, "label": "PER"}]},
            id="Prodigy",
        ),
        pytest.param({"text": TEXT, "label": [[0, 8, "PER"], [14, 18, "LOC"]]}, id="doccano"),
        pytest.param(
            {"id": 1, "text": TEXT, "entities": [{"id": 7, "label": "PER", "start_offset": 0, "end_offset": 8},
                                                 {"id": 8, "label": "LOC", "start_offset": 14, "end_offset": 18}]},
            id="doccano, newer",
        ),
        pytest.param(
            {"text": TEXT, "entities": [{"type": "PER", "text": "Anna Lee", "start": 0, "end": 8, "score": 0.9},
                                        {"type": "LOC", "text": "Oslo", "start": 14, "end": 18, "score": 0.8}]},
            id="predict.py",
        ),
    ],
)  # fmt: skip
def test_what_annotation_tools_write_is_read(row: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, row) == [TAGGED]


def test_a_text_without_entities_is_one_of_words_too(tmp_path: Path) -> None:
    rows = [{"text": "So it is.", "entities": []}, {"text": TEXT, "entities": [[0, 8, "PER"], [14, 18, "LOC"]]}]
    assert read(tmp_path, *rows) == [("So it is .", "O O O O"), TAGGED]
    rows = [{"text": row["text"], "label": row["entities"]} for row in rows]
    assert read(tmp_path, *rows, task="token") == [("So it is .", "O O O O"), TAGGED]


@pytest.mark.parametrize("write", [json.dumps, str])
@pytest.mark.parametrize("column", ["entities", "label"])
def test_entities_in_the_cells_of_a_table_are_read_too(
    column: str, write: Callable[[Any], str], tmp_path: Path
) -> None:
    spans = [{"type": "PER", "start": 0, "end": 8, "score": 0.9}, {"type": "LOC", "start": 14, "end": 18}]
    rows = [(TEXT, write(spans)), ("So it is.", "[]"), (TEXT, write([(0, 8, "PER"), (14, 18, "LOC")]))]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", column), *rows, *[("so", "")] * (column == "entities")])
    (found,) = load({"path": str(path)}).splits.values()
    assert [(" ".join(row["text"]), " ".join(row["label"])) for row in found] == [
        TAGGED, ("So it is .", "O O O O"), TAGGED, *[("so", "O")] * (column == "entities"),
    ]  # fmt: skip


def test_entities_that_do_not_fit_their_text_are_told(tmp_path: Path) -> None:
    words = "the text is a list of words; entities marked by characters need the text itself"
    for row, said in (
        ({"tokens": ["Anna", "Lee"], "entities": [{"start": 0, "end": 8, "label": "PER"}]}, words),
        ({"text": TEXT, "entities": "PER"}, "the entities are text, not a list"),
    ):
        with pytest.raises(UserError, match=rf"a\.jsonl:1: {said}"):
            read(tmp_path, row)
        path = tmp_path / "a.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "entities"), [str(value) for value in row.values()]])
        with pytest.raises(UserError, match=rf"a\.csv:2: {said}"):
            load({"path": str(path)})


@pytest.mark.parametrize("kind", ["parquet", "hub"])
@pytest.mark.parametrize("column", ["entities", "label"])
def test_entities_of_parquet_and_the_hub_are_read_too(
    kind: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [{"start": 0, "end": 8, "type": "PER", "label": None}, {"start": 14, "end": 18, "label": "LOC"}]
    rows = datasets.Dataset.from_list(
        [{"text": "So it is.", column: []}, {"text": TEXT, column: marks}, {"text": "so", column: None}]
    )
    path = tmp_path / "a.parquet"
    rows.to_parquet(path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(train=rows))
    data = {"path": str(path)} if kind == "parquet" else {"hub": "own/entities"}
    (found,) = load(data).splits.values()
    assert [(" ".join(row["text"]), " ".join(row["label"])) for row in found] == [
        ("So it is .", "O O O O"), TAGGED, ("so", "O"),
    ]  # fmt: skip


def test_answers_and_wrong_entities_of_parquet_are_told_with_their_row(tmp_path: Path) -> None:
    good, beyond = [{"start": 0, "end": 8, "label": "PER"}], [{"start": 0, "end": 30, "label": "PER"}]
    for spans, answer, said in (
        (good, "reject", "its answer is 'reject'"),
        (beyond, "accept", "the entity 'PER' at 0 to 30"),
        ([{"start": None, "end": 8, "label": "PER"}], "accept", "an entity needs integers start and end, and a label"),
    ):
        rows = {"text": [TEXT, TEXT], "spans": [good, spans], "answer": ["accept", answer]}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(UserError, match=rf"a\.parquet:2: {said}"):
            load({"path": str(tmp_path / "a.parquet")})


def test_a_word_belongs_to_the_entity_that_a_part_of_it_is_marked_as() -> None:
    assert tagged_words("iPhones, new ", [[0, 6, "PRODUCT"], [8, 13, "X"]]) == (
        ["iPhones", ",", "new"],
        ["B-PRODUCT", "O", "B-X"],
        ["iPhone"],
    )
    assert tagged_words("Nova Anna Lee", [[2, 13, " PER "]]) == (
        ["Nova", "Anna", "Lee"],
        ["B-PER", "I-PER", "I-PER"],
        ["va Anna Lee"],
    )


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([[0, 30, "PER"]], "a.jsonl:2: the entity 'PER' at 0 to 30 is not within the 19 characters"),
        ([[-1, 4, "PER"]], "a.jsonl:2: the entity 'PER' at -1 to 4 is not within the 19 characters"),
        ([[3, 3, "PER"]], "a.jsonl:2: the entity 'PER' at 3 to 3 is empty: the end is one past the last character"),
        ([[4, 5, "PER"]], "a.jsonl:2: the entity 'PER' at 4 to 5 holds no word"),
        ([[0, 8, "PER"], [5, 13, "X"]], "a.jsonl:2: two entities share 'Lee'; a word has one tag"),
        (
            [[0, 8, "B-PER"]],
            "a.jsonl:2: the entity at 0 to 8 is labelled 'B-PER', a tag of words, not a type such as PER",
        ),
        ([[0, 8, "I-PER"]], "a.jsonl:2: the entity at 0 to 8 is labelled 'I-PER', a tag of words"),
        ([[0, 8, " "]], "a.jsonl:2: the label is of type list"),
        ([[0, 8, 5]], "a.jsonl:2: the label is of type list"),
        ([[0, 8, " O"]], "a.jsonl:2: the entity at 0 to 8 is labelled ' O', a tag of words"),
    ],
)
def test_entities_that_cannot_be_are_told(spans: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path, {"text": TEXT, "label": [[0, 8, "PER"]]}, {"text": TEXT, "label": spans})


@pytest.mark.parametrize("answer", ["reject", "ignore"])
def test_what_annotators_did_not_accept_is_no_gold(answer: str, tmp_path: Path) -> None:
    row = {"text": TEXT, "spans": [{"start": 0, "end": 8, "label": "PER"}]}
    rows = [{**row, "answer": "accept"}, {**row, "answer": answer}, row]
    assert len(read(tmp_path, *rows, on_bad_row="skip")) == 2
    with pytest.raises(UserError, match=f"a.jsonl:2: its answer is '{answer}'"):
        read(tmp_path, *rows)


def test_a_text_without_entities_is_read_too(tmp_path: Path) -> None:
    """Its list is empty, as that of a text without labels is: known by the rows before, or by data.task."""
    marked, none = {"text": TEXT, "label": [[0, 8, "PER"]]}, {"text": "so it", "label": []}
    assert read(tmp_path, marked, none)[1] == ("so it", "O O")
    assert read(tmp_path, none, marked, task="token")[0] == ("so it", "O O")
    assert read(tmp_path, marked, {"text": "so it", "label": None})[1] == ("so it", "O O")
    with pytest.raises(UserError, match=r"a\.jsonl:2: an entity needs integers start and end, and a label"):
        read(tmp_path, marked, {"text": "so it", "label": [{"start": "0", "end": 2, "label": "X"}]})
    with pytest.raises(UserError, match=r"unlike in earlier rows \(of words with tags\? then say data.task=token\)"):
        read(tmp_path, none, marked)


def test_lists_of_labels_are_left_alone(tmp_path: Path) -> None:
    assert read(tmp_path, {"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}) == [("a", "x y"), ("b", "")]

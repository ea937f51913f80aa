"""What annotation tools export is read as their users mean it."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from thaw.data.sources import Source, load
from thaw.errors import UserError


def write(folder: Path, rows: list[Any], kind: str = "jsonl") -> Path:
    """Rows in a file of that kind."""
    path = folder / f"a.{kind}"
    if kind == "parquet":
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, **data: Any) -> Source:
    return load({"path": str(path), **data})


def labels(source: Source) -> list[Any]:
    found: list[Any] = source.splits["all"]["label"][:]
    return found


@pytest.mark.parametrize("answer", ["reject", "ignore"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("label", [{"label": "joy"}, {"accept": ["joy", "love"]}], ids=["label", "accept"])
def test_labels_that_prodigys_users_did_not_accept_are_bad_rows(
    label: dict[str, Any], kind: str, answer: str, tmp_path: Path
) -> None:
    given = ["accept", answer, "accept"]
    path = write(tmp_path, [{"text": "so it is", **label, "answer": one} for one in given], kind)
    assert labels(read(path, on_bad_row="skip")) == [*label.values()] * 2
    with pytest.raises(UserError, match=f"a.{kind}:2: its answer is '{answer}', so its annotation was not accepted"):
        read(path)


def test_answers_count_on_the_hub_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [{"text": "a", "label": "x", "answer": answer} for answer in ("accept", "reject")]
    found = datasets.DatasetDict(train=datasets.Dataset.from_list(rows))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: found)
    with pytest.raises(UserError, match="owner/name/train:2: its answer is 'reject'"):
        load({"hub": "owner/name"})


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_answers_that_are_text_or_label_are_no_verdict(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, [{"text": "a", "answer": "reject"}, {"text": "b", "answer": "agree"}], kind)
    assert labels(read(path, label_column="answer")) == ["reject", "agree"]
    path = write(tmp_path, [{"label": "a", "answer": "ignore"}, {"label": "b", "answer": "agree"}], kind)
    assert labels(read(path, text_column="answer")) == ["a", "b"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_choices_of_label_studio_are_lists_of_labels(kind: str, tmp_path: Path) -> None:
    """It writes a single one as a string."""
    given: list[Any] = [{"choices": ["a", "b"]}, "c", {"choices": ["a"]}]
    path = cells(tmp_path, given) if kind == "csv" else write(tmp_path, [{"text": "t", "label": one} for one in given])
    assert labels(read(path)) == [["a", "b"], ["c"], ["a"]]
    given.insert(0, "c")
    path = cells(tmp_path, given) if kind == "csv" else write(tmp_path, [{"text": "t", "label": one} for one in given])
    assert labels(read(path, task="multi_label")) == [["c"], ["a", "b"], ["c"], ["a"]]
    with pytest.raises(UserError, match=r"unlike in earlier rows \(several labels\? then say data\.task=multi_label\)"):
        read(path)


def cells(folder: Path, given: list[Any]) -> Path:
    """A csv with labels of which those that are no strings are JSON."""
    path = folder / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(["t", one if isinstance(one, str) else json.dumps(one)] for one in given)
    return path


def test_an_object_is_no_label(tmp_path: Path) -> None:
    given = {"rating": 3}
    for path in (cells(tmp_path, [given]), write(tmp_path, [{"text": "t", "label": given}])):
        with pytest.raises(UserError, match="the label is of type dict"):
            read(path)
    assert labels(read(cells(tmp_path, ["{a}", "{b"]))) == ["{a}", "{b"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_entities_of_label_studio_are_read(kind: str, tmp_path: Path) -> None:
    span = {"start": 0, "end": 1, "text": "t", "labels": ["PER"]}
    path = cells(tmp_path, [[span]]) if kind == "csv" else write(tmp_path, [{"text": "t", "label": [span]}])
    assert labels(read(path)) == [["B-PER"]]


def test_an_empty_cell_means_no_entity_where_others_hold_some(tmp_path: Path) -> None:
    span = {"start": 0, "end": 1, "labels": ["PER"]}
    assert labels(read(cells(tmp_path, [[span], ""]))) == [["B-PER"], ["O"]]
    assert labels(read(cells(tmp_path, ["", [span]]), task="token")) == [["O"], ["B-PER"]]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize("column", ["spans", "label"])
def test_a_record_without_the_field_of_the_entities_has_none(column: str, kind: str, tmp_path: Path) -> None:
    """Tools leave it out, also in the first records."""
    none, some = {"text": "so it"}, {"text": "so it", column: [{"start": 3, "end": 5, "label": "X"}]}
    assert labels(read(write(tmp_path, [some, none], kind))) == [["O", "B-X"], ["O", "O"]]
    assert labels(read(write(tmp_path, [none, none, some], kind))) == [["O", "O"], ["O", "O"], ["O", "B-X"]]


def test_a_record_without_its_label_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path, [{"text": "a"}, {"text": "b", "label": "x"}, {"text": "c"}])
    with pytest.raises(UserError, match=r"a\.jsonl:1: the field 'label' is missing"):
        read(path)
    assert labels(read(path, on_bad_row="skip")) == ["x"]
    with pytest.raises(UserError, match="no column with a usual name for the label; it has: text, other"):
        read(write(tmp_path, [{"text": "a"}, {"text": "b", "other": "x"}]))


def task(text: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    """As the full export of Label Studio has it."""
    return {"id": 7, "data": {"text": text}, "annotations": list(annotations), "predictions": []}


def annotation(kind: str, *values: dict[str, Any], name: str = "label", cancelled: bool = False) -> dict[str, Any]:
    result = [{"from_name": name, "to_name": "text", "type": kind, "value": value} for value in values]
    return {"id": 1, "was_cancelled": cancelled, "result": result}


def test_the_full_export_of_label_studio_holds_entities(tmp_path: Path) -> None:
    first, second = ({"start": start, "end": end, "text": "", "labels": [kind]} for start, end, kind in
                     ((0, 4, "PER"), (10, 14, "LOC")))  # fmt: skip
    relation = {"type": "relation", "from_id": "a", "to_id": "b"}
    both = annotation("labels", second, first)
    both["result"].append(relation)
    rows = [
        task("so it is", annotation("labels")),
        task("Anna left Oslo", annotation("labels", first), both, annotation("labels", cancelled=True)),
    ]
    assert labels(read(write(tmp_path, rows, "json"))) == [["O", "O", "O"], ["B-PER", "O", "B-LOC"]]


def test_the_full_export_of_label_studio_holds_choices(tmp_path: Path) -> None:
    rows = [task("a", annotation("choices", {"choices": [one]}, name="mood")) for one in ("joy", "fear")]
    path = write(tmp_path, rows, "json")
    assert labels(read(path, label_column="mood")) == ["joy", "fear"]
    with pytest.raises(UserError, match="no column with a usual name for the label; it has: text, mood"):
        read(path)
    rows.append(task("a", annotation("choices", {"choices": ["joy", "fear"]}, name="mood")))
    path = write(tmp_path, rows, "json")
    assert labels(read(path, label_column="mood", task="multi_label")) == [["joy"], ["fear"], ["joy", "fear"]]


def test_tasks_of_label_studio_without_annotation_are_bad_rows(tmp_path: Path) -> None:
    done = annotation("choices", {"choices": ["joy"]})
    path = write(tmp_path, [task("a"), task("b", done), task("c", {**done, "was_cancelled": True})], "json")
    with pytest.raises(UserError, match=r"a\.json:1: the task has no annotation\. "):
        read(path)
    found = read(path, on_bad_row="skip")
    assert labels(found) == ["joy"]
    assert [problem for _, _, problem in found.skipped][1] == "the task has no annotation that was not cancelled"


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_pairs_of_spacy_are_rows(kind: str, tmp_path: Path) -> None:
    found = read(write(tmp_path, [["so it", {"entities": [[3, 5, "X"]]}], ["is", {"entities": []}]], kind))
    assert (labels(found), found.splits["all"]["line"][:]) == ([["O", "B-X"], ["O"]], [1, 2])
    assert labels(read(write(tmp_path, [["a", {"cats": {"x": 1.0, "y": 0.0}}]], kind))) == [["x"]]
    for row in (["a", "x"], ["a"], ["a", {}, {}], ["a", []]):
        with pytest.raises(UserError, match=rf"a\.{kind}:1: not a JSON object, as each row should be"):
            read(write(tmp_path, [row], kind))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_names_with_0_or_1_are_the_list_of_those_with_1(kind: str, tmp_path: Path) -> None:
    for given in ([{"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 0, "b": 0}], [{"a": True, "b": False}] * 2):
        rows = [{"text": "t", "label": one} for one in given]
        path = cells(tmp_path, given) if kind == "csv" else write(tmp_path, rows, kind)
        assert labels(read(path)) == [[name for name, value in one.items() if value] for one in given]
    given = [{"a": 1, "b": 2}]
    path = cells(tmp_path, given) if kind == "csv" else write(tmp_path, [{"text": "t", "label": given[0]}], kind)
    with pytest.raises(UserError, match="the label is of type dict"):
        read(path)

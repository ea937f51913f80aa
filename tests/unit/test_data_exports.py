"""What annotation tools export is read as their users mean it."""

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


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_answers_that_are_text_or_label_are_no_verdict(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, [{"text": "a", "answer": "reject"}, {"text": "b", "answer": "agree"}], kind)
    assert labels(read(path, label_column="answer")) == ["reject", "agree"]
    path = write(tmp_path, [{"label": "a", "answer": "ignore"}, {"label": "b", "answer": "agree"}], kind)
    assert labels(read(path, text_column="answer")) == ["a", "b"]

"""Tags of every scheme become IOB2, whatever file they stand in, so that every figure sees the same entities."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from thaw.data.module import TextDataModule, load_labelled
from thaw.data.tags import to_iob2
from thaw.errors import UserError
from thaw.labels import GIVEN
from thaw.metrics.entities import spans

WORDS = ["Anna", "met", "the", "Bank", "of", "Oslo"]
SCHEMES = {
    "IOB2": "B-PER O O B-ORG I-ORG I-ORG",
    "IOB1": "I-PER O O I-ORG I-ORG I-ORG",
    "BIOES": "S-PER O O B-ORG I-ORG E-ORG",
    "BILOU": "U-PER O O B-ORG I-ORG L-ORG",
    "IO": "PER O O ORG ORG ORG",
}
IOB2 = SCHEMES["IOB2"].split()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("I-PER I-PER O I-PER B-PER", "B-PER I-PER O B-PER B-PER", id="IOB1"),
        pytest.param("I-PER I-ORG I-ORG", "B-PER B-ORG I-ORG", id="IOB1, another type"),
        pytest.param("B-PER I-PER E-PER S-ORG S-ORG O", "B-PER I-PER I-PER B-ORG B-ORG O", id="BIOES"),
        pytest.param("B-PER I-PER L-PER U-ORG O", "B-PER I-PER I-PER B-ORG O", id="BILOU"),
        pytest.param("B-PER B-PER I-PER O", "B-PER B-PER I-PER O", id="IOB2"),
        pytest.param("NN VB E -", "NN VB E -", id="parts of speech"),
    ],
)
def test_tags_become_iob2(given: str, expected: str) -> None:
    assert to_iob2(given.split()) == expected.split()


def dataset(tags: list[str], names: list[str]) -> Any:
    """As the Hub and Parquet hold it, with numbers for tags."""
    import datasets

    numbers = datasets.List(datasets.ClassLabel(names=names))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": numbers})
    ids = [names.index(tag) for tag in tags]
    return datasets.Dataset.from_dict({"tokens": [WORDS] * 10, "ner_tags": [ids] * 10}, features=features)


def write(
    kind: str, folder: Path, tags: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Ten sentences in a file, or on the Hub; the settings that name them."""
    import datasets

    path = folder / f"some.{kind}"
    if kind == "hub":
        found = {split: dataset(tags, names) for split in ("train", "test")}
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(found))
        return {"hub": "owner/name"}
    if kind == "parquet":
        dataset(tags, names).to_parquet(path)
    elif kind == "jsonl":
        path.write_text((json.dumps({"words": WORDS, "tags": tags}) + "\n") * 10)
    else:
        path.write_text(("".join(f"{word} {tag}\n" for word, tag in zip(WORDS, tags, strict=True)) + "\n") * 10)
    return {"path": str(path)}


def read(settings: dict[str, Any], **data: Any) -> TextDataModule:
    import yaml

    defaults = yaml.safe_load((ROOT / "conf" / "data" / "_data.yaml").read_text())
    module = TextDataModule({**defaults, **settings, **data}, lambda _: None, 64, 1)
    module.read()
    return module


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["conll", "jsonl", "parquet", "hub"])
def test_entities_are_the_same_in_every_scheme_and_format(
    kind: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = SCHEMES[scheme].split()
    marks = {"IOB2": "BI", "IOB1": "I", "BIOES": "BIES", "BILOU": "BILU", "IO": [""]}[scheme]
    names = ["O", *(f"{mark}-{kind}".lstrip("-") for kind in ("PER", "ORG") for mark in marks)]
    data = read(write(kind, tmp_path, tags, names, monkeypatch))
    for rows in data.rows.values():
        for own in rows["label"]:
            assert [data.labels.names[i] for i in own] == IOB2
    assert spans(IOB2) == [("PER", 0, 1), ("ORG", 3, 6)]
    if scheme == "IOB2" and kind in ("parquet", "hub"):
        assert (data.labels.names, data.labels.order) == (tuple(names), GIVEN)
    else:
        assert data.labels.names == ("O", "B-ORG", "I-ORG", "B-PER", "I-PER")


@pytest.mark.parametrize("name", ["a.conll", "train.conll"])
def test_a_single_sentence_is_one_whose_blank_lines_are_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("Anna B-PER\nmet O\n" * 120)
    with pytest.raises(UserError, match=rf"{name}: a single sentence of 240 words\. Blank lines divide sentences"):
        read({"path": str(tmp_path if name == "train.conll" else tmp_path / name)})
    (tmp_path / "two.conll").write_text("Anna B-PER\nmet O\n\n" * 2)
    with pytest.raises(UserError, match=r"two\.conll: too few rows to divide: "):
        read({"path": str(tmp_path / "two.conll")})


def test_a_single_sentence_may_be_all_of_train_where_others_validate(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("Anna B-PER\nmet O\n")
    (tmp_path / "valid.conll").write_text("Anna B-PER\nmet O\n\n" * 2)
    rows = read({"path": str(tmp_path)}).rows
    assert (len(rows["train"]), len(rows["validation"])) == (1, 2)


def test_names_of_another_scheme_name_numbers_too(tmp_path: Path) -> None:
    names = ["O", "S-PER", "B-ORG", "I-ORG", "E-ORG"]
    path = tmp_path / "some.jsonl"
    path.write_text((json.dumps({"words": WORDS, "tags": [1, 0, 0, 2, 3, 4]}) + "\n") * 10)
    data = read({"path": str(path)}, label_names=names)
    assert [data.labels.names[i] for i in data.rows["train"][0]["label"]] == IOB2
    assert read({"path": str(path)}, label_names=["O", "B-PER", "B-ORG", "I-ORG", "B-X"]).labels.order == GIVEN


@pytest.mark.parametrize(
    ("tags", "names", "unclear"),
    [
        ("S-Bahn O O U-Bahn U-Bahn O", "O B-S-Bahn I-S-Bahn B-U-Bahn I-U-Bahn", "S-Bahn"),
        ("B-PER I-PER O S-Bahn S-Bahn O", "O S-Bahn B-PER I-PER", "S-Bahn"),
        ("S-PER O O S-ORG S-ORG O", "O B-ORG I-ORG B-PER I-PER", None),
        ("U-PER O O U-ORG U-ORG O", "O B-ORG I-ORG B-PER I-PER", None),
        ("B-PER E-PER O S-Bahn S-Bahn O", "O B-Bahn I-Bahn B-PER I-PER", None),
        ("E-Auto NN NN S-Bahn NN NN", "E-Auto NN S-Bahn", None),
    ],
    ids=["IO", "IOB2", "BIOES without longer entities", "BILOU without", "BIOES", "parts of speech"],
)
def test_names_of_types_are_no_prefixes(
    tags: str, names: str, unclear: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only where a type has B- or I-, too, or all have the same, are S-, U-, E- and L- marks of a scheme."""
    path = tmp_path / "some.jsonl"
    path.write_text((json.dumps({"words": WORDS, "tags": tags.split()}) + "\n") * 10)
    data = read({"path": str(path)})
    assert data.labels.names == tuple(names.split())
    own = [data.labels.names[i] for i in data.rows["train"][0]["label"]]
    assert own[3].removeprefix("B-").removeprefix("I-") in tags.split()[3]
    said = [line for line in caplog.messages if line.startswith(f"Tags such as {unclear} are taken as they are")]
    assert len(said) == (unclear is not None)


def test_names_tell_a_scheme_that_the_tags_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, tags in (("train", "S-PER O O S-ORG S-ORG O"), ("valid", "B-PER E-PER O O O O")):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps({"words": WORDS, "tags": tags.split()}) + "\n") * 10)
    data = read({"path": str(tmp_path)}, label_names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG"])
    found = {name: " ".join(data.labels.names[i] for i in rows[0]["label"]) for name, rows in data.rows.items()}
    assert found == {"train": "B-PER O O B-ORG B-ORG O", "validation": "B-PER I-PER O O O O"}
    assert not caplog.messages
    (tmp_path / "valid.jsonl").write_text(json.dumps({"words": ["so"], "tags": ["S-LOC"]}) + "\n")
    with pytest.raises(UserError, match="the label 'S-LOC' is unknown"):
        read({"path": str(tmp_path)}, label_names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG"])


@pytest.mark.parametrize("kind", ["jsonl", "conll"])
def test_names_without_prefixes_name_numbers_too(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tags: list[Any] = [1, 0, 0, 2, 2, 2]
    with caplog.at_level("INFO"):
        data = read(write(kind, tmp_path, tags, [], monkeypatch), label_names=["O", "PER", "ORG"])
    assert [data.labels.names[i] for i in data.rows["train"][0]["label"]] == IOB2
    assert any(said.startswith("Tags without B- and I-: neighbouring equal tags are read") for said in caplog.messages)


def test_splits_and_new_rows_follow_the_tags_of_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A test split may hold prefixes, no O, or a type that is unknown."""
    for name, rows in {"train": "Anna PER\nmet O\nRoy PER\n\n", "valid": "Anna PER\nLee PER\n\n"}.items():
        (tmp_path / f"{name}.conll").write_text(rows * 5)
    (tmp_path / "test.conll").write_text("Anna B-PER\nLee I-PER\nRoy B-PER\n\n")
    data = read({"path": str(tmp_path)})
    found = {name: [data.labels.names[i] for i in rows[0]["label"]] for name, rows in data.rows.items()}
    assert found["train"] == ["B-PER", "O", "B-PER"]
    assert found["validation"] == ["B-PER", "I-PER"]
    assert found["test"] == ["B-PER", "I-PER", "B-PER"]
    new = tmp_path / "new.conll"
    new.write_text("Anna PER\nLee PER\nmet O\n\n")
    assert load_labelled({**data.data, "path": str(new)}, data.labels, "test")[1] == [[1, 2, 0]]
    new.write_text("Anna PER\nmet O\nOslo LOC\n\n")
    with pytest.raises(UserError, match="the label 'LOC' is unknown"):
        load_labelled({**data.data, "path": str(new)}, data.labels, "test")


def test_tags_without_o_or_of_some_words_alone_stay_as_they_are(tmp_path: Path) -> None:
    for tags, names in (("NN VB", ("NN", "VB")), ("B-PER X O", ("O", "X", "B-PER", "I-PER"))):
        path = tmp_path / "some.jsonl"
        own = tags.split()
        path.write_text((json.dumps({"words": WORDS[: len(own)], "tags": own}) + "\n") * 10)
        assert read({"path": str(path)}).labels.names == names


def test_label_names_that_are_no_names_are_not_taken_for_another_scheme(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text((json.dumps({"words": WORDS, "tags": IOB2}) + "\n") * 10)
    with pytest.raises(UserError, match="is not a list of distinct names"):
        read({"path": str(path)}, label_names=["O", "B-PER", "B-PER"])

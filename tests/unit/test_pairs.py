"""Pairs of texts are read, encoded and scored as transformers does it."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import pipeline

from conftest import configured
from thaw.data.encoding import encode_texts
from thaw.data.pairs import joined, parted, shares
from thaw.data.rows import Options
from thaw.data.sources import load
from thaw.errors import UserError
from thaw.inference.explanation import read
from thaw.inference.predictor import Predictor
from thaw.inference.records import read_records
from thaw.inference.texts import as_in_training
from thaw.labels import LabelSet
from thaw.models.encoder import load_encoder, load_tokenizer
from thaw.models.module import EncoderModule
from thaw.models.segments import segments
from thaw.settings import check
from tiny_models import ARCHITECTURES, CORPUS

Encoders = Callable[[str], Path]
LABELS = LabelSet("sequence", ("no", "yes"), (1, 1), pairs=True)
PAIRS = [*pairwise(CORPUS[:8]), ("short", " ".join(CORPUS)), (" ".join(CORPUS), "short"), ("", "so"), ("so", "")]
COLUMNS = {"text_column": ["premise", "hypothesis"], "label_column": "label"}


@pytest.mark.parametrize("max_length", [6, 7, 16, 17, 64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_are_encoded_and_cut_as_the_tokenizer_does(
    architecture: str, max_length: int, encoders: Encoders
) -> None:
    tokenizer = load_tokenizer(encoders(architecture), "sequence")
    firsts, seconds = map(list, zip(*PAIRS, strict=True))
    ids, offsets, lengths = encode_texts([joined(*pair) for pair in PAIRS], tokenizer, max_length, pairs=True)
    expected = tokenizer(firsts, seconds, truncation="longest_first", max_length=max_length)["input_ids"]
    assert [ids[start:end].tolist() for start, end in pairwise(offsets)] == expected
    assert lengths.tolist() == [len(row) for row in tokenizer(firsts, seconds, verbose=False)["input_ids"]]


def test_each_text_of_a_pair_has_a_token_at_least(encoders: Encoders) -> None:
    said = r"data\.max_length=5 leaves no token for one of the two texts of a pair\. Give 6 or more"
    with pytest.raises(UserError, match=said):
        encode_texts(["a [SEP] b"], load_tokenizer(encoders("roberta"), "sequence"), 5, pairs=True)


def test_the_longer_text_is_cut_first() -> None:
    assert shares(3, 4, 9) == (3, 4)
    assert shares(3, 40, 9) == (3, 6)
    assert shares(40, 3, 9) == (6, 3)
    assert shares(40, 40, 9) == (4, 5)
    assert shares(41, 40, 9) == (5, 4)


def test_a_pair_is_parted_where_it_was_joined() -> None:
    assert parted(joined("a", "b [SEP] c")) == ("a", "b [SEP] c")
    assert parted(joined("", "")) == parted(joined(" ", "\t")) == ("", "")
    assert parted(joined("a", "")) == ("a", "")
    assert parted(joined(" ", " b ")) == ("", " b ")
    for first in ("a [SEP] b", "a [SEP]", "[SEP] a", "a[SEP]b"):
        with pytest.raises(ValueError, match="the first text of a pair holds"):
            joined(first, "c")
    with pytest.raises(ValueError, match="'a' is not a pair"):
        parted("a")


def test_segments_begin_behind_the_first_separator() -> None:
    ids = torch.tensor([[1, 7, 3, 8, 3], [1, 3, 0, 0, 0], [1, 3, 3, 0, 0]])
    assert segments(ids, 3).tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_an_encoder_is_loaded_with_the_segments_of_a_pair(encoders: Encoders) -> None:
    """Whoever loads it, such as for the baseline before training."""
    single = LabelSet("sequence", LABELS.names, LABELS.counts)
    tokenizer = load_tokenizer(encoders("bert"), "sequence")
    batch, scores = tokenizer("a happy day", "so sad", return_tensors="pt"), []
    for labels, given in ((LABELS, {"input_ids": batch["input_ids"]}), (single, batch)):
        torch.manual_seed(0)
        network: Any = load_encoder(encoders("bert"), labels, {}).eval()
        scores.append(network(**given).logits.tolist()[0])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_get_the_scores_of_the_pipeline(architecture: str, encoders: Encoders, tmp_path: Path) -> None:
    """In training and in prediction: also where the encoder tells the two texts apart by segments."""
    groups: dict[str, Any] = {
        name: dict(configured()[name]) for name in ("model", "freeze", "loss", "metrics", "optimizer")
    }
    torch.manual_seed(0)
    module = EncoderModule(encoders(architecture), LABELS, {**groups, "strict": False}).eval()
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.mul_(3)  # so that the scores of different pairs differ
    tokenizer = load_tokenizer(encoders(architecture), "sequence")
    module.network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "config.yaml").write_text("data:\n  eval_batch_size: 4\n")
    description = {"max_length": 64, "clean_html": False, "joined_by": ""}
    (tmp_path / "labels.json").write_text(json.dumps({**LABELS.to_dict(), **description}))

    classify: Any = pipeline("text-classification", model=str(tmp_path / "model"), top_k=None, device="cpu")
    pairs = PAIRS[:-1]  # the pipeline takes an empty second text for none
    given = [{"text": first, "text_pair": second} for first, second in pairs]
    expected = [{one["label"]: one["score"] for one in classify(one, truncation=True, max_length=64)} for one in given]
    predict = Predictor.from_run(tmp_path)
    found = predict(pairs, probabilities=True)
    assert [row["text"] for row in predict(given)] == [row["text"] for row in found]
    assert [row["text"] for row in found] == [joined(*pair) for pair in pairs]
    for own, scores in zip(found, expected, strict=True):
        assert own["probabilities"] == pytest.approx(scores, abs=1e-5)
    batch = tokenizer(*map(list, zip(*PAIRS[:4], strict=True)), return_tensors="pt", padding=True)
    own_scores = module(batch["input_ids"], batch["attention_mask"]).softmax(-1)[:, 1].tolist()
    assert own_scores == pytest.approx([scores["yes"] for scores in expected[:4]], abs=1e-5)
    swapped = Predictor.from_run(tmp_path)([(second, first) for first, second in PAIRS[:4]], probabilities=True)
    assert any(abs(row["probabilities"]["yes"] - own["yes"]) > 1e-4
               for row, own in zip(swapped, expected[:4], strict=True))  # fmt: skip


def test_what_is_no_pair_is_told(encoders: Encoders) -> None:
    tokenizer = load_tokenizer(encoders("bert"), "sequence")
    predict = Predictor(lambda batches: iter(()), tokenizer, LABELS, max_length=16)
    for text, said in (
        ("so", "'so' is not a pair"),
        (("a [SEP] b", "c"), "holds"),
        (("a", "b", "c"), "is not a pair of texts"),
        (("a", None), "is not a pair of texts"),
        ({"text": "a"}, "is not a pair of texts"),
    ):
        with pytest.raises(UserError, match=said):
            predict([text])


def test_words_of_both_texts_are_explained_where_they_stand(encoders: Encoders) -> None:
    tokenizer = load_tokenizer(encoders("roberta"), "sequence")

    def logits(batches: Any) -> Any:
        for ids, _ in batches:
            yield np.zeros((len(ids), 2), dtype=np.float32)

    predictor = Predictor(logits, tokenizer, LABELS, max_length=16)
    (short, long) = read(predictor, ["He came. [SEP] She came, too.", f"{CORPUS[0]} [SEP] {CORPUS[1]}"])
    text = "He came. [SEP] She came, too."
    assert [text[start:end] for start, end in short.words] == ["He", "came", ".", "She", "came", ",", "too", "."]
    assert short.unread == []
    assert short.ids.tolist() == tokenizer("He came.", "She came, too.")["input_ids"]
    for word, (start, end) in enumerate(short.words):
        assert tokenizer.decode(short.ids[short.owner == word]).strip() == text[start:end]
    expected = tokenizer(CORPUS[0], CORPUS[1], truncation="longest_first", max_length=16)["input_ids"]
    assert long.ids.tolist() == expected
    whole = f"{CORPUS[0]} [SEP] {CORPUS[1]}"
    assert [end for _, end in long.unread] == [len(CORPUS[0]), len(whole)], "each text is cut at its end"


ROWS = [("It rains.", "It is wet.", "yes"), ("It rains, a lot.", "It is dry.", "no")]
TEXTS = ["It rains. [SEP] It is wet.", "It rains, a lot. [SEP] It is dry."]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"pairs.{kind}"
    names = ("premise", "hypothesis", "label")
    if kind == "parquet":
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*ROWS, strict=True)), strict=True))), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))
    else:
        mark = "\t" if kind == "tsv" else "|"  # which part the fields where there is no comma in the first line
        path.write_text("".join(mark.join(row) + "\n" for row in (names, *ROWS)))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_two_columns_are_read_as_a_pair(kind: str, tmp_path: Path) -> None:
    rows = load({"path": str(write(tmp_path, kind)), **COLUMNS}).splits["all"]
    assert rows["text"][:] == TEXTS
    assert rows["label"][:] == ["yes", "no"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"premise": "a"}, "the field 'hypothesis' is missing"),
        ({"premise": "", "hypothesis": " "}, "both texts are empty"),
        ({"premise": None, "hypothesis": "\t"}, "both texts are empty"),
        ({"premise": None, "hypothesis": 7}, "the second text is of type int"),
        ({"premise": ["a"], "hypothesis": "b"}, "the first text is of type list"),
        ({"premise": "a [SEP] b", "hypothesis": "b"}, "the first text of a pair holds '[SEP]' itself"),
    ],
)
def test_a_bad_pair_names_its_line_and_its_text(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    with path.open("a") as file:
        file.write(json.dumps({**row, "label": "no"}) + "\n")
    with pytest.raises(UserError) as error:
        load({"path": str(path), **COLUMNS})
    assert f"pairs.jsonl:3: {said}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "so;yes\n", "the format txt has no columns with names. Write pairs of texts as csv"),
        ("a.conll", "so O\n", "the format conll has no columns with names"),
        ("a.csv", "premise,label\na,b\n", "no column 'hypothesis'; it has: premise, label"),
        ("a.csv", "premise,hypothesis,hypothesis,label\na,b,b,c\n", "several columns are named 'hypothesis'"),
    ],
)
def test_files_without_the_two_columns_are_refused(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        load({"path": str(tmp_path / name), **COLUMNS, "task": "token" if name.endswith("conll") else None})
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_one_text_of_a_pair_may_be_empty(kind: str, tmp_path: Path) -> None:
    """As of a ticket without a subject: the row counts, in training and wherever the run reads others."""
    path, columns = tmp_path / f"a.{kind}", {"premise": ["so", " ", None], "hypothesis": [None, "no", "<br>what"]}
    if kind == "parquet":
        pq.write_table(pa.table({**columns, "label": ["x", "y", "x"]}), path)
    elif kind == "jsonl":
        rows = zip(*columns.values(), "xyx", strict=True)
        path.write_text("".join(json.dumps(dict(zip([*columns, "label"], row, strict=True))) + "\n" for row in rows))
    else:
        path.write_text("premise,hypothesis,label\nso,,x\n ,no,y\n,<br>what,x\n")
    expected = ["so [SEP] ", " [SEP] no", " [SEP] what"]
    assert load({"path": str(path), **COLUMNS, "clean_html": True}).splits["all"]["text"][:] == expected
    given = read_records(str(path), kind, Options(text_column=["premise", "hypothesis"], pairs=True))
    labels = LabelSet("sequence", ("x", "y"), (1, 1), pairs=True)
    assert [as_in_training(text, labels, clean=True) for text, _ in given.records] == expected


def test_a_pair_gets_a_label_unless_both_texts_are_nothing(encoders: Encoders) -> None:
    network = load_encoder(encoders("bert"), LABELS, {})
    predict = Predictor.from_network(
        network, load_tokenizer(encoders("bert"), "sequence"), LABELS, max_length=16, clean=True
    )
    pairs: list[Any] = [("", ""), " [SEP] ", ("<br>", "\u200b"), {"text": " ", "text_pair": "&nbsp;"}]
    *blank, one, other = predict([*pairs, ("so", ""), ("", "so")])
    assert blank[0] == {"text": " [SEP] ", "label": None, "score": None}
    assert [row["label"] for row in blank] == [None] * 4
    assert {one["label"], other["label"]} <= {*LABELS.names}
    with pytest.raises(UserError, match=r"texts\[1\]: None is not a pair of texts"):
        predict([("so", "it"), None])  # type: ignore[list-item]


def test_html_is_taken_out_of_both_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"premise": "<b>It</b> rains", "hypothesis": "so<br>what", "label": "x"}) + "\n")
    assert load({"path": str(path), **COLUMNS, "clean_html": True}).splits["all"]["text"][:] == [
        "It rains [SEP] so what"
    ]


@pytest.mark.parametrize("columns", [["a"], ["a", "a"], ["a", "b", "c"], ["a", 0.5], []])
def test_a_pair_is_two_different_columns(columns: list[Any]) -> None:
    config: Any = {"data": {"text_column": columns}}
    from thaw.values import COLUMNS as RULE
    from thaw.values import or_null

    with pytest.raises(UserError, match="or a list of two"):
        check(config, {"data.text_column": or_null(RULE)})
    check({"data": {"text_column": ["a", 1]}}, {"data.text_column": or_null(RULE)})

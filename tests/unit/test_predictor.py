"""Predictions of a finished run: those of transformers' pipelines, for any text."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import pipeline
from transformers.modeling_outputs import TokenClassifierOutput

from thaw.errors import UserError
from thaw.inference.explanation import explain
from thaw.inference.network import torch_logits
from thaw.inference.predictor import Predictor
from thaw.inference.words import joiners
from thaw.labels import LabelSet
from thaw.metrics.outputs import compute_metrics
from thaw.models.encoder import load_encoder, load_tokenizer
from thaw.scoring import predict_rows
from tiny_models import ARCHITECTURES, CORPUS

Encoders = Callable[[str], Path]
Make = Callable[..., Path]
LABELS = {
    "sequence": LabelSet("sequence", ("joy", "anger", "fear"), (1, 1, 1), rows=3),
    "multi_label": LabelSet("multi_label", ("joy", "anger", "fear"), (1, 1, 1), rows=3),
    "token": LabelSet("token", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), (1,) * 5),
    "tags": LabelSet("token", ("NOUN", "VERB", "ADJ"), (1, 1, 1)),
}
WORDPIECE = ("bert", "bert_cased", "distilbert", "electra", "mpnet")
ODD = {
    "empty": "",
    "white space": " \n\t\u3000 ",
    "emoji": "I am 😀👍🏽 in Oslo",
    "right to left": "אני שמח מאוד היום, שלום",
    "combining marks": "Cafe\u0301 o\u0308\u0301 n\u0303",
    "ligatures": "ﬁne ½ İstanbul",
    "lone surrogate": "\ud800 in Oslo",
    "NUL": "Maria\x00 came\x00",
    "invisible": "\u200b\u200d\ufeff",
    "special tokens": "[MASK] <s> </s> [SEP] [PAD] <pad>",
    "punctuation": "...!!! (—) ¿?",
    "one long word": "a" * 1_000,
    "many words": "Maria came to Oslo. " * 100,
}
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_task = pytest.mark.parametrize("task", LABELS)


@pytest.fixture(scope="session")
def finished(encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that gives the part of a finished run that prediction needs, with a network that has opinions."""
    known: dict[tuple[str, str], Path] = {}

    def make(architecture: str, task: str) -> Path:
        if (architecture, task) not in known:
            run, labels = tmp_path_factory.mktemp("run"), LABELS[task]
            torch.manual_seed(1)
            network: Any = load_encoder(encoders(architecture), labels, {})
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.mul_(3)  # so that the labels of different texts differ
            network.save_pretrained(run / "model")
            load_tokenizer(encoders(architecture), labels.task).save_pretrained(run / "model")
            (run / "config.yaml").write_text("data:\n  eval_batch_size: 8\n")
            (run / "labels.json").write_text(
                json.dumps({**labels.to_dict(), "max_length": 64, "clean_html": False, "joined_by": ""})
            )
            known[architecture, task] = run
        return known[architecture, task]

    return make


@every_architecture
def test_half_precision_changes_scores_a_little(architecture: str, finished: Make) -> None:
    run = finished(architecture, "sequence")
    exact, rounded = (Predictor.from_run(run, precision=one)(CORPUS) for one in ("32-true", "bf16-mixed"))
    apart = [abs(one["score"] - other["score"]) for one, other in zip(exact, rounded, strict=True)]
    assert 0 < max(apart) < 0.05


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "16-mixed"}, "precision=16-mixed is for GPUs. Give bf16-mixed"),
        ({"precision": "fp16"}, "precision=fp16 is not known. Choose one of: 32-true, bf16-mixed, 16-mixed"),
        ({"precision": "bf16-mixed", "backend": "onnx"}, "backend=onnx has a precision of its own. Leave precision"),
    ],
)
def test_a_precision_that_cannot_be_had_is_told(options: dict[str, str], said: str, finished: Make) -> None:
    with pytest.raises(UserError, match=said):
        Predictor.from_run(finished("bert", "sequence"), **options)


class ByToken(nn.Module):
    """Stands for a network that knows each token's label by heart."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> TokenClassifierOutput:
        return TokenClassifierOutput(logits=self.logits[input_ids])


class ShortSighted(nn.Module):
    """Stands for a network that takes the first and the last token that it is shown for verbs."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> TokenClassifierOutput:
        logits = torch.eye(3)[torch.zeros_like(input_ids)]
        logits[:, 1, 1] = 2.0  # between the special tokens
        logits[torch.arange(len(logits)), attention_mask.sum(-1) - 2, 1] = 2.0
        return TokenClassifierOutput(logits=logits)


@pytest.mark.parametrize("task", ["sequence", "multi_label"])
@every_architecture
def test_texts_get_the_labels_and_scores_of_the_pipeline(architecture: str, task: str, finished: Make) -> None:
    run = finished(architecture, task)
    texts = [*CORPUS, " ".join(CORPUS)]  # the last one is cut
    classify = pipeline("text-classification", model=str(run / "model"), top_k=None, device="cpu")
    expected = [{one["label"]: one["score"] for one in row} for row in classify(texts, truncation=True, max_length=64)]
    found = Predictor.from_run(run)(texts, probabilities=True)
    assert [row["text"] for row in found] == texts
    for own, scores in zip(found, expected, strict=True):
        assert own["probabilities"] == pytest.approx(scores, abs=1e-5)
        if task == "sequence":
            assert own["label"] == max(scores, key=lambda name: scores[name])
            assert own["score"] == own["probabilities"][own["label"]]
        else:
            assert set(own["labels"]) == {name for name, score in scores.items() if score >= 0.5}
            assert own["scores"] == {name: own["probabilities"][name] for name in own["labels"]}


@every_architecture
def test_a_text_is_read_as_its_words_are_in_training(architecture: str, finished: Make) -> None:
    """Tokenizers would take the punctuation of a plain text for a part of the word before it."""
    predictor = Predictor.from_run(finished(architecture, "tags"))
    text = "Maria met Dr. Okafor, (of  Lagos-Oslo)! "
    words = ["Maria", "met", "Dr", ".", "Okafor", ",", "(", "of", "Lagos", "-", "Oslo", ")", "!"]
    plain, given = predictor([text, words])
    assert [one["text"] for one in plain["entities"]] == words
    assert [one["type"] for one in plain["entities"]] == given["tags"]
    assert [one["score"] for one in plain["entities"]] == pytest.approx(given["scores"], abs=1e-5)
    assert all(text[one["start"] : one["end"]] == one["text"] for one in plain["entities"])


@pytest.mark.parametrize("architecture", WORDPIECE)
def test_words_get_the_scores_of_the_pipeline(architecture: str, finished: Make) -> None:
    """Tags that mark no spans: one for each word, from its first token."""
    run = finished(architecture, "tags")
    label_tokens: Any = pipeline("token-classification", model=str(run / "model"), ignore_labels=[], device="cpu")
    predictor = Predictor.from_run(run)
    seen = set()
    for text in CORPUS[:10]:
        (found,) = predictor([text])
        tokens = {one["start"]: one for one in label_tokens(text)}
        assert [one["text"] for one in found["entities"]] == predictor.words_of(text)
        for own in found["entities"]:
            assert own["type"] == tokens[own["start"]]["entity"]
            assert own["score"] == pytest.approx(tokens[own["start"]]["score"], abs=1e-5)
            seen.add(own["type"])
    assert len(seen) > 1


@pytest.mark.parametrize("architecture", WORDPIECE)
def test_entities_are_those_of_the_pipeline(architecture: str, finished: Make) -> None:
    run = finished(architecture, "token")
    label_words: Any = pipeline(
        "token-classification", model=str(run / "model"), aggregation_strategy="first", device="cpu"
    )
    found = [row["entities"] for row in Predictor.from_run(run)(list(CORPUS))]
    assert len({one["type"] for row in found for one in row}) == 2
    for text, own in zip(CORPUS, found, strict=True):
        expected = label_words(text)
        places = [(one["entity_group"], one["start"], one["end"]) for one in expected]
        assert [(one["type"], one["start"], one["end"]) for one in own] == places
        assert [one["score"] for one in own] == pytest.approx([float(one["score"]) for one in expected], abs=1e-5)


@every_task
@every_architecture
def test_any_text_gets_an_answer(architecture: str, task: str, finished: Make) -> None:
    predictor = Predictor.from_run(finished(architecture, task))
    texts = [*ODD.values(), *CORPUS[:3]]
    found = predictor(texts)
    assert [row["text"] for row in found] == [text.replace("\ud800", "?") for text in texts]  # of the same length
    if predictor.labels.task == "token":
        for row in found:
            for one in row["entities"]:
                assert one["text"] == row["text"][one["start"] : one["end"]]
                assert one["text"] == one["text"].strip() != ""
    else:
        assert all(0 <= score <= 1 for row in found for score in scores(row))

    # Neither the order of the texts nor the size of the batches matters.
    order = random.Random(0).sample(range(len(texts)), len(texts))
    predictor.batch_size = 3
    again = predictor([texts[i] for i in order])
    assert [without_scores(again[order.index(i)]) for i in range(len(texts))] == [without_scores(row) for row in found]
    assert [score for i in range(len(texts)) for score in scores(again[order.index(i)])] == pytest.approx(
        [score for row in found for score in scores(row)], abs=1e-5
    )


def scores(row: dict[str, Any]) -> list[float]:
    if "entities" in row:
        return [one["score"] for one in row["entities"]]
    if "scores" in row:
        return list(row["scores"].values())
    return [] if row["score"] is None else [row["score"]]


def without_scores(row: dict[str, Any]) -> Any:
    entities = [(one["type"], one["start"], one["end"]) for one in row.get("entities", [])]
    return row["text"], row.get("label"), row.get("labels"), entities


@pytest.mark.parametrize("max_length", [5, 16, 17])
def test_long_texts_are_read_in_windows_and_no_word_is_left_out(max_length: int, encoders: Encoders) -> None:
    """Entities that stand across the end of a window stay whole."""
    predictor = by_letter(encoders)
    predictor.max_length = max_length
    (found,) = predictor([" ".join(["a b b", "c", "d"] * 50)])
    assert [(one["type"], one["text"]) for one in found["entities"]] == [("PER", "a b b"), ("LOC", "d")] * 50
    assert [one["start"] for one in found["entities"]] == [i for k in range(50) for i in (10 * k, 10 * k + 8)]


def test_a_token_is_read_in_the_window_that_shows_more_around_it(encoders: Encoders) -> None:
    tokenizer = load_tokenizer(encoders("bert"), "token")
    predictor = Predictor(torch_logits(ShortSighted()), tokenizer, LABELS["tags"], max_length=16)
    (found,) = predictor(["a " * 100])
    assert [one["type"] for one in found["entities"]] == ["VERB", *["NOUN"] * 98, "VERB"]


def test_long_texts_are_scored_as_they_are_predicted(encoders: Encoders) -> None:
    tokenizer = load_tokenizer(encoders("bert"), "token")
    network = load_encoder(encoders("bert"), LABELS["token"], {})
    predictor = Predictor(torch_logits(network), tokenizer, LABELS["token"], max_length=16)
    texts = [["a", "b"], ["d", "\u200b", "unhappiness", "c"] * 40, ["c"] * 15]
    predicted = [row["tags"] for row in predictor(texts)]
    gold = [[LABELS["token"].ids[tag] for tag in tags] for tags in predicted]
    outputs = predict_rows(predictor, texts, gold, "test")
    assert [row.tolist() for row in outputs.tags(LABELS["token"])] == gold
    assert [len(row) for row in outputs.words] == [2, 120, 15]
    assert compute_metrics(outputs, LABELS["token"])["accuracy"] == 1


def by_letter(encoders: Encoders, architecture: str = "bert", unsure: str = "", **options: Any) -> Predictor:
    """Of a network that takes a, b, c, d for B-PER, I-PER, O, B-LOC, and all else for O.

    Args:
        unsure: a letter with a score of 0.4 instead of 0.97.
    """
    labels, tokenizer = LABELS["token"], load_tokenizer(encoders(architecture), "token")
    logits = torch.zeros(len(tokenizer), len(labels))
    logits[:, labels.ids["O"]] = 1.0
    for letter, name in {"a": "B-PER", "b": "I-PER", "c": "O", "d": "B-LOC"}.items():
        own = logits[tokenizer.convert_tokens_to_ids(letter)]
        own[:] = 0.0
        own[labels.ids[name]] = math.log(0.4 / 0.15) if letter == unsure else 5.0
    return Predictor(torch_logits(ByToken(logits)), tokenizer, labels, max_length=32, **options)


def test_words_that_are_given_stay_the_words_they_are(encoders: Encoders) -> None:
    predict = by_letter(encoders)
    words = ["a-d", "b", "c", "\u200b", "d.a"]
    (given, text, nothing) = predict([words, " ".join(words), []])
    assert given["words"] == words
    assert given["tags"] == ["B-PER", "I-PER", "O", "O", "B-LOC"]
    assert [score is None for score in given["scores"]] == [False, False, False, True, False]
    places = [(one["type"], one["text"], one["start"], one["end"]) for one in given["entities"]]
    assert places == [("PER", "a-d b", 0, 2), ("LOC", "d.a", 4, 5)]
    assert [one["text"] for one in text["entities"]] == ["a", "d", "b", "d", "a"]  # parted at punctuation
    assert nothing == {"words": [], "tags": [], "scores": [], "entities": []}
    assert predict.words_of(" a-d  b.") == ["a", "-", "d", "b", "."]
    predict.joined_by = "-"
    assert predict.words_of(" a-d  b.") == ["a-d", "b", "."]
    with pytest.raises(TypeError, match="lists of words are for token tasks"):
        Predictor(predict.logits, predict.tokenizer, LABELS["sequence"], max_length=32)([words])
    for other in (None, {"text": "a"}, ["a", None], float("nan")):
        with pytest.raises(TypeError, match=r"texts\[1\]: .* is no text; lists of words are for token tasks"):
            predict(["a", other])
    with pytest.raises(TypeError, match="give a list of them"):
        predict({"text": "a"})  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("min_score", [None, 0.0, 1.0])
def test_a_text_of_nothing_gets_no_label(architecture: str, min_score: float | None, finished: Make) -> None:
    """Whether the tokenizer has tokens for blanks, as that of bytes does, or not; it is not left to people either."""
    nothing = ["", " \n\u3000", "\u200b\ufeff", "\x00"]
    for task in ("sequence", "multi_label"):
        predictor = Predictor.from_run(finished(architecture, task), min_score=min_score)
        *blank, word, mark = predictor([*nothing, "so", "!"], probabilities=True)
        none = {"labels": [], "scores": {}} if task == "multi_label" else {"label": None, "score": None}
        guess = {"guess": None} if task == "sequence" and min_score is not None else {}
        assert blank == [{"text": text, **none, **guess, "probabilities": {}} for text in nothing]
        assert len(word["probabilities"]) == len(mark["probabilities"]) == 3
        assert predictor.sure + predictor.unsure == (2 if guess else 0)


def test_a_text_is_read_before_it_is_found_to_be_nothing(finished: Make) -> None:
    predictor = Predictor.from_run(finished("bert", "sequence"))
    predictor.clean = True
    found = predictor(["<br/>", "&nbsp;", "<!-- a note -->", "<b>so</b>"])
    assert [row["label"] is None for row in found] == [True, True, True, False]


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_texts_that_score_too_little_get_a_guess(architecture: str, finished: Make) -> None:
    run = finished(architecture, "sequence")
    plain = Predictor.from_run(run)(CORPUS, probabilities=True)
    limit = sorted(row["score"] for row in plain)[len(plain) // 3]
    predictor = Predictor.from_run(run, min_score=limit)
    found = predictor(CORPUS, probabilities=True)
    for own, other in zip(found, plain, strict=True):
        assert own["label"] == (other["label"] if other["score"] >= limit else None)
        assert own.pop("guess") == other["label"]
        assert {**own, "label": None} == {**other, "label": None}
    assert (predictor.sure, predictor.unsure) == (len(plain) - len(plain) // 3, len(plain) // 3)


def test_the_score_that_counts_is_the_calibrated_one_if_it_is_given(encoders: Encoders) -> None:
    """At a temperature of 2, half the log-odds: 0.9 to 0.1 becomes 0.75 to 0.25."""
    for task, plain, mended in (("sequence", "joy", None), ("multi_label", ["joy"], [])):
        labels = LabelSet(LABELS[task].task, ("joy", "anger"), (1, 1), rows=2)
        network: Any = load_encoder(encoders("bert"), labels, {})
        with torch.no_grad():
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(torch.tensor([0.9, 0.1]).logit() / (2 if task == "sequence" else 1))
        settings: dict[str, Any] = {"tokenizer": load_tokenizer(encoders("bert"), task), "max_length": 64}
        settings |= {"labels": labels, "thresholds": [0.95, 0.05], "temperature": 2.0, "min_score": 0.8}
        answers = [Predictor(torch_logits(network), calibrated=own, **settings)(["so"])[0] for own in (False, True)]
        key = "label" if task == "sequence" else "labels"
        assert [row[key] for row in answers] == [plain, mended]
        assert task != "sequence" or [row["score"] for row in answers] == pytest.approx([0.9, 0.75], abs=1e-5)


def test_entities_that_score_too_little_are_left_out(encoders: Encoders) -> None:
    """The score of an entity is the mean of its words, and those of a list stay."""
    predict = by_letter(encoders, unsure="d", min_score=0.6)
    words = ["a", "b", "c", "d", "\u200b"]
    given, text = predict([words, " ".join(words)])
    assert given["tags"] == ["B-PER", "I-PER", "O", "O", "O"]
    assert given["scores"] == [*[pytest.approx(0.974, abs=1e-3)] * 3, pytest.approx(0.4), None]
    assert [one["text"] for one in given["entities"]] == [one["text"] for one in text["entities"]] == ["a b"]
    assert (predict.sure, predict.unsure) == (2, 2)
    (explained,) = explain(predict, ["a b c d"], "leave_one_out")
    assert [one["name"] for one in explained["targets"]] == ["PER"]
    half = by_letter(encoders, unsure="b", min_score=0.6)(["a b", "a b b"])
    assert [len(one["entities"]) for one in half] == [1, 0], "0.97 and 0.4, then 0.97, 0.4 and 0.4"


def test_tags_that_score_too_little_are_none(finished: Make) -> None:
    run, words = finished("bert", "tags"), [*CORPUS[0].split(), "\u200b"]
    plain, text = Predictor.from_run(run)([words, " ".join(words)])
    limit = sorted(plain["scores"][:-1])[3]
    predictor = Predictor.from_run(run, min_score=limit)
    (found,) = predictor([words])
    sure = [score is not None and score >= limit for score in plain["scores"]]
    assert found["tags"] == [tag if own else None for tag, own in zip(plain["tags"], sure, strict=True)]
    assert found["scores"] == plain["scores"]
    assert (predictor.sure, predictor.unsure) == (len(words) - 4, 3), "a word without a token has no score"
    (entities,) = (row["entities"] for row in predictor([" ".join(words)]))
    assert entities == [one for one in text["entities"] if one["score"] >= limit]
    assert 0 < len(entities) < len(text["entities"])


@pytest.mark.parametrize("min_score", [-0.1, 90])
def test_a_score_that_there_is_not_is_a_user_error(min_score: float, finished: Make) -> None:
    with pytest.raises(UserError, match=f"min_score={min_score} is not a number from 0 to 1"):
        Predictor.from_run(finished("bert", "sequence"), min_score=min_score)


def test_the_marks_within_words_are_learnt_from_the_data() -> None:
    data = [["E-404", "U.S.", "it", "'s"], ["A-1", "e.g.", "n't", "'s"], ["B-2", "3.5", "O'Brien", "'s", "a/b", "-"]]
    assert joiners(data) == "-."
    assert joiners([["plain", "words", ".", "E", "-", "404"]]) == ""
    assert joiners([["5°C", "-3°C", "20°C", "20", "°", "™"]]) == "°"


def test_several_labels_are_given_from_their_thresholds_on(encoders: Encoders) -> None:
    labels = LABELS["multi_label"]
    network: Any = load_encoder(encoders("bert"), labels, {})
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([0.3, 0.5, 0.7]).logit())
    settings: dict[str, Any] = {"tokenizer": load_tokenizer(encoders("bert"), "multi_label"), "max_length": 64}
    (plain,) = Predictor(torch_logits(network), labels=labels, **settings)(["so"])
    assert plain == {"text": "so", "labels": ["anger", "fear"], "scores": pytest.approx({"anger": 0.5, "fear": 0.7})}
    (chosen,) = Predictor(torch_logits(network), labels=labels, thresholds=[0.25, 0.6, 0.9], **settings)(["so"])
    assert chosen["labels"] == ["joy"]


def test_a_stream_is_read_as_it_is_answered(finished: Make) -> None:
    """In constant memory: no more than a few batches are waiting."""
    predictor, read = Predictor.from_run(finished("bert", "sequence"), batch_size=1), 0

    def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield f"text {read}"

    answers = predictor.stream(endless())
    assert [next(answers)["text"] for _ in range(40)] == [f"text {i}" for i in range(1, 41)]
    assert read < 100


@pytest.mark.parametrize("task", ["sequence", "token"])
def test_a_text_of_20_000_words_is_read(task: str, finished: Make) -> None:
    (found,) = Predictor.from_run(finished("bert", task))(["Maria came home. " * 6_667])
    if task == "token":
        assert found["entities"][-1]["end"] > 0.99 * len(found["text"])


def test_no_texts_give_no_answers(finished: Make) -> None:
    assert Predictor.from_run(finished("bert", "token"))([]) == []


def test_one_string_is_not_taken_for_a_list_of_letters(finished: Make) -> None:
    with pytest.raises(TypeError, match="give a list"):
        Predictor.from_run(finished("bert", "sequence"))("I love this")  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [-1, 0, 1.5, "many"])
def test_a_wrong_batch_size_is_a_user_error(batch_size: Any, finished: Make) -> None:
    with pytest.raises(UserError, match=f"batch_size={batch_size}"):
        Predictor.from_run(finished("bert", "sequence"), batch_size=batch_size)


def test_a_run_that_is_not_finished_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {}\n")
    with pytest.raises(UserError, match="the run is not finished"):
        Predictor.from_run(tmp_path)

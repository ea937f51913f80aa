"""Explanations add up, speak of words, and tell how faithful they are."""

import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from thaw.errors import UserError
from thaw.inference import masking
from thaw.inference.attribution import check_method, phrases
from thaw.inference.explanation import explain, explained, split_words
from thaw.inference.network import torch_logits
from thaw.inference.predictor import Predictor
from thaw.labels import LabelSet
from thaw.models.encoder import load_encoder, load_tokenizer
from thaw.reporting.explanations import parts
from thaw.reporting.reading import rows_to_explain
from thaw.values import METHODS
from tiny_models import ARCHITECTURES, CORPUS

Encoders = Callable[[str], Path]
LABELS = {
    "sequence": LabelSet("sequence", ("joy", "anger", "fear"), (1, 1, 1), rows=3),
    "multi_label": LabelSet("multi_label", ("joy", "anger", "fear"), (1, 1, 1), rows=3),
    "token": LabelSet("token", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), (1,) * 5),
}
TOLERANCE = {"shap": 1e-4, "integrated_gradients": 1e-2}  # log-odds, as the README states


def tiny(encoders: Encoders, architecture: str, task: str, **options: Any) -> Predictor:
    """A predictor whose network has opinions."""
    torch.manual_seed(1)
    network: Any = load_encoder(encoders(architecture), LABELS[task], {})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    tokenizer = load_tokenizer(encoders(architecture), LABELS[task].task)
    predictor = Predictor(torch_logits(network), tokenizer, LABELS[task], max_length=64, **options)
    predictor.network = network
    return predictor


class Bag(nn.Module):
    """A network of two labels whose log-odds are the sum of a number for each token."""

    def __init__(self, numbers: dict[int, float], size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, 2)
        nn.init.zeros_(self.embedding.weight)
        with torch.no_grad():
            for token, value in numbers.items():
                self.embedding.weight[token, 1] = value

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=(self.embedding(input_ids) * attention_mask[..., None]).sum(1))


def bag(encoders: Encoders, numbers: dict[str, float]) -> Predictor:
    tokenizer = load_tokenizer(encoders("bert"), "sequence")
    network = Bag({tokenizer.convert_tokens_to_ids(token): value for token, value in numbers.items()}, len(tokenizer))
    labels = LabelSet("sequence", ("no", "yes"), (1, 1), rows=2)
    predictor = Predictor(torch_logits(network), tokenizer, labels, max_length=64)
    predictor.network = network
    return predictor


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_add_up_to_the_score(architecture: str, task: str, encoders: Encoders) -> None:
    predictor = tiny(encoders, architecture, task)
    texts = [CORPUS[0], "Maria", "", CORPUS[10]]
    predictor(texts)  # what inference mode has cached must not be in the way of gradients
    for method, tolerance in TOLERANCE.items():
        found = list(explain(predictor, texts, method, evaluations=20))
        assert len(found) == len(texts)
        for one in found:
            for target in one["targets"]:
                assert len(target["values"]) == len(one["words"])
                assert sum(target["values"]) == pytest.approx(target["score"] - target["baseline"], abs=tolerance)
                assert abs(target["gap"]) < tolerance
        assert any(np.ptp(target["values"]) > 10 * target["gap"] for one in found for target in one["targets"])
    assert task == "token" or {len(one["targets"]) for one in found} == {3}


@pytest.mark.parametrize("method", METHODS)
def test_values_are_those_of_a_hand_computation(method: str, encoders: Encoders) -> None:
    """Where the log-odds are a sum over tokens, every method gives each word what its tokens bring."""
    predictor = bag(encoders, {"a": 2.0, "b": -1.0, "[MASK]": 0.25, "[CLS]": 0.5})
    tokens = len(predictor.tokenizer("wonderfullest", add_special_tokens=False)["input_ids"])
    assert tokens > 1
    (found,) = explain(predictor, ["a b wonderfullest"], method)
    no, yes = sorted(found["targets"], key=lambda target: target["name"])
    assert yes["values"] == pytest.approx([1.75, -1.25, -0.25 * tokens], abs=1e-5)
    assert no["values"] == pytest.approx([-value for value in yes["values"]], abs=1e-5)
    assert yes["score"] == pytest.approx(1.5)
    assert yes["baseline"] == pytest.approx(0.5 + 0.25 * (tokens + 2))
    assert yes["probability"] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-6)


@pytest.mark.parametrize("task", LABELS)
def test_values_do_not_depend_on_how_many_masked_texts_are_held(
    task: str, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = tiny(encoders, "bert", task)
    texts = [CORPUS[0], "Maria", "", CORPUS[10]]
    expected = list(explain(predictor, texts, "leave_one_out"))
    monkeypatch.setattr(masking, "HELD", 20)
    for one, other in zip(explain(predictor, texts, "leave_one_out"), expected, strict=True):
        for mine, theirs in zip(one["targets"], other["targets"], strict=True):
            assert mine["values"] == pytest.approx(theirs["values"], abs=1e-4)
            assert mine["sufficiency"] == pytest.approx(theirs["sufficiency"], abs=1e-4)


def test_memory_for_a_long_text_is_bounded(encoders: Encoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each word has logits, those of all masked texts would take 800 MB."""
    labels = LabelSet("token", ("O", *(f"{mark}-{i}" for i in range(5) for mark in "BI")), (1,) * 11)
    tokenizer = load_tokenizer(encoders("bert"), "token")
    numbers = np.random.default_rng(0).normal(size=(len(tokenizer), len(labels))).astype(np.float32)
    numbers[tokenizer.convert_tokens_to_ids("b"), labels.ids["O"]] = 9

    def logits(batches: Iterable[Any]) -> Iterator[np.ndarray]:
        return (numbers[ids] for ids, _ in batches)

    predictor = Predictor(logits, tokenizer, labels, max_length=1_002)
    monkeypatch.setattr(predictor, "network", torch.nn.Identity())
    monkeypatch.setattr(masking, "HELD", 20_000)
    tracemalloc.start()
    try:
        (found,) = explain(predictor, ["a " + "b " * 999], "leave_one_out")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert len(found["words"]) == 1_000
    assert len(found["targets"]) == 1


def test_faithfulness_of_a_known_case(encoders: Encoders) -> None:
    """Four words: the first 1, 5, 10 and 20 % are one of them, 50 % are two."""

    def p(odds: float) -> float:
        return float(1 / (1 + np.exp(-odds)))

    (found,) = explain(bag(encoders, {"a": 3.0, "b": 1.0, "c": -1.0}), ["a c d b"], "leave_one_out")
    yes = next(target for target in found["targets"] if target["name"] == "yes")
    assert yes["comprehensiveness"] == pytest.approx(p(3) - (4 * p(0) + p(-1)) / 5, abs=1e-5)
    assert yes["sufficiency"] == pytest.approx(p(3) - (4 * p(3) + p(4)) / 5, abs=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta_v3", "modernbert"])
def test_words_are_explained_not_sub_tokens(architecture: str, encoders: Encoders) -> None:
    predictor = tiny(encoders, architecture, "sequence")
    text = "Don't, well-known  friends (of\nunhappiness)!"
    (found,) = explain(predictor, [text], "leave_one_out")
    words = [text[start:end] for start, end in found["words"]]
    assert words == ["Don't", ",", "well-known", "friends", "(", "of", "unhappiness", ")!"]
    assert found["unread"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n", []),
        ("It costs $3.50, e.g. today…", ["It", "costs", "$", "3.50", ",", "e.g", ".", "today", "…"]),
        ("<b>so</b> good", ["<", "b", ">", "so", "</", "b", ">", "good"]),
        ("我很高兴 today", ["我", "很", "高", "兴", "today"]),
        ("हिन्दी शब्द 🎉", ["हिन्दी", "शब्द", "🎉"]),
    ],
)
def test_texts_are_split_at_blanks_and_punctuation(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


@pytest.mark.parametrize("task", ["sequence", "multi_label"])
def test_a_text_that_has_no_label_has_nothing_to_explain(task: str, encoders: Encoders, tmp_path: Path) -> None:
    predictor, page = tiny(encoders, "roberta", task), tmp_path / "page.html"
    rows = explained(predictor, predictor.stream(["", "Maria", " "]), "a run", "leave_one_out", 20, str(page))
    assert [len(row["explanation"]["targets"]) for row in rows] == [0, 3, 0]
    assert page.read_text(encoding="utf-8").count("there is nothing to explain") == 2


def test_entities_are_explained_in_words_that_are_given(encoders: Encoders) -> None:
    predictor = tiny(encoders, "bert_cased", "token")
    words = ["Dr.", "Okafor", "left", "Lagos-Oslo", "on", "Monday", "."]
    text = " ".join(words)
    (found,) = explain(predictor, [words], "leave_one_out")
    assert [text[start:end] for start, end in found["words"]] == words
    assert found["targets"]
    for target in found["targets"]:
        assert target["name"] in ("LOC", "PER")
        assert target["start"] in [start for start, _ in found["words"]]
        assert 0 <= target["probability"] <= 1


def test_entities_are_those_of_the_prediction(encoders: Encoders) -> None:
    predictor = tiny(encoders, "roberta", "token")
    for text, found in zip(CORPUS[:5], explain(predictor, CORPUS[:5], "leave_one_out"), strict=True):
        (prediction,) = predictor([text])
        places = [(one["type"], one["start"], one["end"]) for one in prediction["entities"]]
        assert [(one["name"], one["start"], one["end"]) for one in found["targets"]] == places
        scores = [one["probability"] for one in found["targets"]]
        assert scores == pytest.approx([one["score"] for one in prediction["entities"]], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_text_without_entities_has_words_and_no_values(method: str, encoders: Encoders) -> None:
    predictor = tiny(encoders, "bert", "token")
    with torch.no_grad():
        predictor.network.classifier.weight.zero_()
        predictor.network.classifier.bias.copy_(torch.tensor([5.0, 0, 0, 0, 0]))
    (found,) = explain(predictor, ["so it is"], method)
    assert (len(found["words"]), found["targets"]) == (3, [])


@pytest.mark.parametrize("task", LABELS)
def test_long_texts_are_explained_as_far_as_they_are_read(task: str, encoders: Encoders) -> None:
    text = "Maria came to Oslo. " * 50
    (found,) = explain(tiny(encoders, "bert_cased", task), [text], "leave_one_out")
    ((start, end),) = found["unread"]
    assert found["words"][-1][1] <= start < end == len(text.rstrip())


def test_of_a_text_without_its_middle_both_ends_are_explained(encoders: Encoders) -> None:
    predictor = bag(encoders, {"a": 2.0, "b": -1.0, "c": 9.0})
    predictor.max_length, predictor.truncation = 6, "middle"  # one token from the start, three from the end
    text = "a c c b c b"
    (found,) = explain(predictor, [text], "leave_one_out")
    assert found["unread"] == [[2, 5]]
    assert [text[start:end] for start, end in found["words"]] == ["a", "b", "c", "b"]
    target = next(target for target in found["targets"] if target["name"] == "yes")
    assert target["values"] == pytest.approx([2, -1, 9, -1], abs=1e-5)
    assert "".join(part["text"] for part in parts(text, found, target)) == text
    assert [part["text"] for part in parts(text, found, target) if part["kind"] == "unread"] == ["c c"]


def test_of_many_labels_the_most_probable_are_explained(encoders: Encoders) -> None:
    labels = LabelSet("sequence", tuple(f"c{i}" for i in range(30)), (1,) * 30, rows=30)
    network: Any = load_encoder(encoders("bert"), labels, {})
    predictor = Predictor(torch_logits(network), load_tokenizer(encoders("bert"), "sequence"), labels, max_length=64)
    (prediction,), (found,) = (
        predictor(["so happy"], probabilities=True), list(explain(predictor, ["so happy"], "leave_one_out")),
    )  # fmt: skip
    ranked = sorted(prediction["probabilities"].items(), key=lambda pair: -pair[1])[:10]
    assert [(one["name"], one["probability"]) for one in found["targets"]] == [
        (name, pytest.approx(score, abs=1e-5)) for name, score in ranked
    ]


def test_calibrated_explanations_are_of_calibrated_scores(encoders: Encoders) -> None:
    plain = tiny(encoders, "bert", "sequence")
    mended = tiny(encoders, "bert", "sequence", temperature=2.0, calibrated=True)
    for method in METHODS:
        (one,), (other,) = (list(explain(predictor, [CORPUS[0]], method)) for predictor in (plain, mended))
        assert other["targets"][0]["probability"] < one["targets"][0]["probability"]
        if method in TOLERANCE:
            assert abs(other["targets"][0]["gap"]) < TOLERANCE[method]


def test_the_same_explanation_comes_again(encoders: Encoders) -> None:
    """Seven evaluations look into one of two phrases of equal value, which shap chooses at random."""
    predictor, found = bag(encoders, {"a": 2.0, "b": -1.0}), []
    for seed in range(5):
        np.random.seed(seed)
        before = np.random.get_state()[1].copy()
        found += explain(predictor, ["a b b a"], "shap", evaluations=7)
        assert (np.random.get_state()[1] == before).all(), "random numbers of others are left alone"
    assert all(one == found[0] for one in found)
    assert sorted(np.abs(found[0]["targets"][0]["values"])) != pytest.approx([1, 1, 2, 2]), "more take more time"
    assert not import_module("numba").config.DISABLE_JIT, "what others compile is compiled"


@pytest.mark.parametrize("words", [2, 3, 7, 100])
def test_phrases_hold_every_word_once(words: int) -> None:
    tree = phrases(words)
    assert len(tree) == words - 1
    assert sorted(tree[:, :2].reshape(-1)) == list(range(2 * words - 2))
    assert tree[-1, 3] == words


def test_what_cannot_be_done_is_a_user_error(encoders: Encoders, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="explain=lime is not known"):
        check_method("lime")
    check_method("leave_one_out", gradients=False)
    predictor = tiny(encoders, "bert", "sequence")
    predictor.network = None
    with pytest.raises(UserError, match="needs gradients"):
        list(explain(predictor, ["so"], "integrated_gradients"))
    monkeypatch.setitem(sys.modules, "shap.explainers", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[shap\]'"):
        check_method("shap")


def test_rows_to_explain_are_errors_and_sure_ones() -> None:
    labels = LabelSet("sequence", ("a", "b"), (1, 1), rows=2)
    rows = [
        {"text": "", "label": "a", "predicted": "ba"[score > 0.5], "probabilities": {"a": score, "b": 1 - score}}
        for score in (0.1, 0.9, 0.51, 0.99, 0.6, 0.45)
    ]
    chosen = rows_to_explain(rows, labels, None, 3)
    assert list(chosen) == [0, 2, 3]
    assert chosen[0][:2] == ["highest loss", "most confident mistakes"]
    assert "sure and right" in chosen[3]
    assert rows_to_explain(rows, labels, None, 0) == {}
    assert sorted(rows_to_explain(rows, labels, None, 100)) == list(range(6))

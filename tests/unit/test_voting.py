"""Several runs that vote: the average of their probabilities, whatever the order of their labels and their words."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from conftest import configured
from thaw import files, runs
from thaw.errors import UserError
from thaw.evaluation import evaluate
from thaw.inference import labelling
from thaw.inference.explanation import explain
from thaw.inference.predictor import Predictor
from thaw.joint_evaluation import evaluate_together
from thaw.labels import LabelSet, Task
from thaw.models.encoder import load_encoder, load_tokenizer
from thaw.runs import listed, several

Encoders = Callable[[str], Path]
Make = Callable[..., Path]


@pytest.fixture
def make(encoders: Encoders, tmp_path: Path) -> Make:
    """A function that gives a run whose network has the same opinion of every text or word, exported as well.

    Args of the function:
        name: of its folder.
        opinion: the probability of each label.
        saved: further content of ``labels.json``.
    """

    def finished(
        name: str, opinion: dict[str, float], task: Task = "sequence", architecture: str = "bert", **saved: Any
    ) -> Path:
        run, odds = tmp_path / name, torch.tensor([*opinion.values()])
        labels = LabelSet(task, tuple(opinion), (1,) * len(opinion), rows=3)
        network: Any = load_encoder(encoders(architecture), labels, {})
        bias = odds.logit() if task == "multi_label" else odds.log()
        with torch.no_grad():
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(bias)
        network.save_pretrained(run / "model")
        tokenizer = load_tokenizer(encoders(architecture), task)
        tokenizer.save_pretrained(run / "model")
        (run / "config.yaml").write_text("data:\n  eval_batch_size: 8\n")
        (run / "metrics.json").write_text("{}")
        given = {"max_length": 64, "clean_html": False, "joined_by": "", **labels.to_dict(), **saved}
        (run / "labels.json").write_text(json.dumps(given))
        (run / "onnx").mkdir()
        tokenizer.save_pretrained(run / "onnx")
        (run / "onnx/labels.json").write_text(json.dumps({**given, "pad_token_id": tokenizer.pad_token_id}))
        onnx.save(constant(np.tile(bias.numpy(), (len(tokenizer), 1)), task == "token"), run / "onnx/model.onnx")
        return run

    return finished


def constant(table: np.ndarray, by_token: bool) -> onnx.ModelProto:
    """An exported network that looks its logits up, and averages them unless there is one for each token."""
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits" if by_token else "tokens"])]
    if not by_token:
        nodes.append(helper.make_node("ReduceMean", ["tokens", "axes"], ["logits"], keepdims=0))
    shape = ["rows", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    known = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axes")]
    graph = helper.make_graph(nodes, "constant", inputs, outputs, known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_probabilities_are_averaged_by_the_names_of_the_labels(backend: str, make: Make) -> None:
    """Two that lean to joy are outvoted by one that is sure of fear; encoders and lengths may differ."""
    first = make("a", {"joy": 0.5, "anger": 0.2, "fear": 0.3})
    second = make("b", {"fear": 0.35, "joy": 0.45, "anger": 0.2}, architecture="distilbert", max_length=8)
    third = make("c", {"anger": 0.04, "fear": 0.95, "joy": 0.01})
    predict = Predictor.from_runs([first, second, third], backend=backend)
    one, two = predict(["so", "A text that only two of them read to the end, since it is long."], probabilities=True)
    assert one["probabilities"] == pytest.approx({"joy": 0.32, "anger": 0.44 / 3, "fear": 1.6 / 3}, abs=1e-5)
    assert (one["label"], one["score"]) == ("fear", one["probabilities"]["fear"])
    assert two["probabilities"] == pytest.approx(one["probabilities"])
    assert [own.cut for own in (predict, *predict.others)] == [0, 1, 0]
    alone = Predictor.from_runs([first], backend=backend)(["so"])
    assert alone == [{"text": "so", "label": "joy", "score": pytest.approx(0.5)}]
    (left,) = Predictor.from_runs([first, second, third], backend=backend, min_score=0.6)(["so"])
    assert (left["label"], left["guess"]) == (None, "fear")


def test_each_run_has_its_own_temperature(make: Make) -> None:
    """At a temperature of 2, 0.9 to 0.1 becomes 0.75 to 0.25."""
    voters = [
        make("a", {"joy": 0.9, "anger": 0.1}, temperature=2.0),
        make("b", {"joy": 0.5, "anger": 0.5}, temperature=1),
    ]
    (found,) = Predictor.from_runs(voters, calibrated=True)(["so"])
    assert found["score"] == pytest.approx((0.75 + 0.5) / 2)


@pytest.mark.parametrize("task", ["sequence", "token"])
def test_the_label_is_the_one_that_the_given_probabilities_favour(task: Task, make: Make) -> None:
    """At a temperature of 3, 0.9 to 0.1 becomes 0.675 to 0.325: less than the other's 0.7 for anger."""
    voters = [make("a", {"joy": 0.9, "anger": 0.1}, task, temperature=3.0),
              make("b", {"joy": 0.3, "anger": 0.7}, task, temperature=1.0)]  # fmt: skip
    told = []
    for calibrated in (False, True):
        (found,) = Predictor.from_runs(voters, calibrated=calibrated)([["so"] if task == "token" else "so"])
        told.append((found["tags"][0], found["scores"][0]) if task == "token" else (found["label"], found["score"]))
    assert told == [("joy", pytest.approx(0.6)), ("anger", pytest.approx((0.3247 + 0.7) / 2, abs=1e-3))]


def test_a_temperature_changes_no_label_that_a_threshold_decides(make: Make) -> None:
    """Thresholds are of uncalibrated probabilities. At a temperature of 3, 0.9 becomes 0.675."""
    opinions = {"joy": 0.9, "anger": 0.1}, {"joy": 0.7, "anger": 0.1}
    voters = [make(f"run{i}", own, "multi_label", thresholds=[0.75, 0.5], temperature=3.0 - 2 * i)
              for i, own in enumerate(opinions)]  # fmt: skip
    (found,) = Predictor.from_runs(voters, calibrated=True)(["so"])
    assert found["labels"] == ["joy"]
    assert found["scores"]["joy"] == pytest.approx((0.6753 + 0.7) / 2, abs=1e-3)
    (none,) = Predictor.from_runs(voters, calibrated=True, min_score=0.75)(["so"])
    assert none["labels"] == []


def test_thresholds_are_averaged_as_well(make: Make) -> None:
    first = make("a", {"joy": 0.5, "anger": 0.6}, "multi_label", thresholds=[0.4, 0.8], temperature=1.0)
    second = make("b", {"anger": 0.9, "joy": 0.1}, "multi_label", thresholds=[0.6, 0.3], temperature=1.0)
    (found,) = Predictor.from_runs([first, second])(["so"])
    assert found == {"text": "so", "labels": ["anger"], "scores": {"anger": pytest.approx(0.75)}}
    (both,) = Predictor.from_runs([first, second], min_score=0.25)(["so"])
    assert both["labels"] == ["joy", "anger"], "one number takes the place of all thresholds"


def test_words_are_averaged_over_the_runs_that_read_them(make: Make) -> None:
    """Of the two tokenizers only the one of bytes has a token for a joiner of width zero."""
    first = make("a", {"O": 0.7, "B-LOC": 0.2, "I-LOC": 0.1}, "token")
    second = make("b", {"B-LOC": 0.9, "I-LOC": 0.04, "O": 0.06}, "token", architecture="roberta")
    predict = Predictor.from_runs([first, second])
    words, text = predict([["so", "\u200b", "Oslo"], "in Oslo"])
    assert words["tags"] == ["B-LOC"] * 3
    assert words["scores"] == pytest.approx([0.55, 0.9, 0.55], abs=1e-5)
    assert [(one["text"], one["score"]) for one in text["entities"]] == [
        ("in", pytest.approx(0.55)), ("Oslo", pytest.approx(0.55)),
    ]  # fmt: skip
    (nobody,) = Predictor.from_runs([first, make("c", {"O": 0.7, "B-LOC": 0.2, "I-LOC": 0.1}, "token")])([["\u200b"]])
    assert (nobody["tags"], nobody["scores"]) == (["O"], [None])


@pytest.mark.parametrize(
    ("task", "names", "saved", "said"),
    [
        ("multi_label", ("joy", "anger"), {}, "one is a sequence task, the other a multi_label task"),
        ("sequence", ("joy", "fear"), {}, "the labels differ: anger, fear in one only"),
        ("sequence", ("joy", "anger"), {"clean_html": True}, "only one of them has data.clean_html=true"),
        ("sequence", ("joy", "anger"), {"pairs": True}, "only one of them was trained on pairs of texts"),
    ],
)
def test_runs_that_answer_other_questions_cannot_vote(
    task: Task, names: Sequence[str], saved: dict[str, Any], said: str, make: Make
) -> None:
    voters = [make("a", {"joy": 0.5, "anger": 0.5}), make("b", dict.fromkeys(names, 0.5), task, **saved)]
    with pytest.raises(UserError) as caught:
        Predictor.from_runs(voters)
    assert str(caught.value) == f"{voters[0]} and {voters[1]} cannot vote together: {said}. Leave one of them out."


def test_runs_that_find_other_words_read_those_of_the_first(make: Make) -> None:
    tags = {"O": 0.5, "B-LOC": 0.3, "I-LOC": 0.2}
    both = [make("a", tags, "token", joined_by="-."), make("b", tags, "token")]
    assert Predictor.from_runs(both).joined_by == "-.", "words are those of the first"


def test_the_folder_of_a_multirun_stands_for_its_finished_runs(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    voters = [make(f"many/seed-{i}", {"joy": share, "anger": 1 - share}) for i, share in enumerate((0.9, 0.2, 0.4))]
    many = voters[0].parent
    (many / "multirun.yaml").touch()
    (voters[1] / "metrics.json").unlink()
    (found,) = Predictor.from_runs([many])(["so"])
    assert found["score"] == pytest.approx(0.65)
    assert capsys.readouterr().err == f"note: finished runs of {many}: 2 of 3\n"
    with pytest.raises(UserError, match=r"run: .*seed-2 is given twice"):
        several([many, voters[2]])
    for run in voters:
        (run / "metrics.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="no run of this multirun is finished"):
        several([many])


def test_a_comma_separates_two_folders_unless_it_is_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert listed(f"{tmp_path}/a,b") == [f"{tmp_path}/a,b"]
    assert listed("a,b") == listed("[a, b]") == ["a", "b"]
    assert len(listed(",".join(["outputs/emotion/a"] * 1_000))) == 1_000, "longer than a path can be"
    with pytest.raises(UserError, match=r"run=a,: a name is missing\. A comma separates two run folders"):
        several(listed("a,"))


def test_several_runs_label_a_file(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voters = [make("a", {"joy": 0.9, "anger": 0.1}), make("b", {"anger": 0.3, "joy": 0.7}, max_length=8)]
    (tmp_path / "in.csv").write_text("id,text\n1,so\n2,a text of so many words that it is cut by one of them\n")
    places = [f"run='{voters[0]},{voters[1]}'", f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv"]
    labelling.label(configured(*places, "min_score=0.85", verb="predict"))
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "1,so,,joy,0.8"
    assert capsys.readouterr().err.splitlines() == [
        "note: 1 of 2 texts have more than 8 tokens, and the end was not read",
        "note: texts left to people, with a score below 0.85: 2 of 2",
    ]
    with pytest.raises(UserError, match="explain=leave_one_out is for one run, and 2 vote"):
        labelling.label(configured(*places, "explain=leave_one_out", verb="predict"))
    with pytest.raises(UserError, match="explain=leave_one_out is for one run, and 2 vote"):
        list(explain(Predictor.from_runs(voters), ["so"], "leave_one_out"))


@pytest.mark.parametrize(
    ("tags", "min_score", "tag", "said"),
    [
        (("O", "B-LOC", "I-LOC"), 0.7, "B-LOC", "entities left to people, with a score below 0.7: 0 of 2"),
        (("O", "B-LOC", "I-LOC"), 0.8, "O", "entities left to people, with a score below 0.8: 2 of 2"),
        (("ADJ", "NOUN", "VERB"), 0.7, "NOUN", "words left to people, with a score below 0.7: 0 of 2"),
        (("ADJ", "NOUN", "VERB"), 0.8, "_", "words left to people, with a score below 0.8: 2 of 2"),
    ],
)
def test_columns_hold_the_tags_that_score_enough(
    tags: Sequence[str], min_score: float, tag: str, said: str, make: Make, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = make("a", dict(zip(tags, (0.15, 0.75, 0.1), strict=True)), "token")
    (tmp_path / "in.conll").write_text("so\nit\n")
    places = [f"run={run}", f"input={tmp_path}/in.conll", f"output={tmp_path}/out.conll"]
    labelling.label(configured(*places, f"min_score={min_score}", verb="predict"))
    assert (tmp_path / "out.conll").read_text() == f"so {tag}\nit {tag}\n\n"
    assert capsys.readouterr().err == f"note: {said}\n"


def test_a_guess_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    labelling.show_result({"text": "so", "label": None, "guess": "joy", "score": 0.6})
    assert re.search(r"guess +score\n.*\n +joy +0\.6000", capsys.readouterr().out)
    labelling.show_result({"text": "so", "label": "joy", "guess": "joy", "score": 0.6})
    assert "label" in capsys.readouterr().out


@pytest.fixture
def tested(make: Make) -> Make:
    """A function that gives a run, as `make` does, with the rows that it was tested on.

    Args of the function:
        rows: pairs of text and true label.
        own: its figures.
    """

    def finished(name: str, opinion: dict[str, float], rows: Sequence[tuple[Any, Any]], own: Any, *more: Any) -> Path:
        run = make(name, opinion, *more)
        runs.save_config(run, configured("data.eval_batch_size=8"))
        field = "text" if isinstance(rows[0][0], str) else "words"
        files.write_jsonl(run / "predictions/test.jsonl", [{field: text, "label": label} for text, label in rows])
        files.write_json(run / "metrics.json", {f"test/{figure}": value for figure, value in own.items()})
        return run

    return finished


def test_a_vote_is_scored_beside_the_runs_alone(
    tested: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"text {i}", "joy" if i else "anger") for i in range(4)]
    first = tested("a", {"joy": 0.3, "anger": 0.7}, rows, {"accuracy": 0.25, "loss": 1.0})
    second = tested("b", {"anger": 0.1, "joy": 0.9}, rows, {"accuracy": 0.75, "loss": 0.5})
    before = sorted(path for run in (first, second) for path in run.rglob("*"))
    output = tmp_path / "vote.jsonl"
    evaluate(configured(f"run='{first},{second}'", f"output={output}", verb="evaluate"))
    shown = capsys.readouterr().out
    assert "Metrics of 2 runs that vote, 4 rows" in " ".join(shown.split())
    assert re.search(r"accuracy +0\.7500 +0\.\d+ to 0\.\d+ +0\.5000 +0\.2500 +0\.7500", shown)
    assert re.search(rf"loss +{-(3 * np.log(0.6) + np.log(0.4)) / 4:.4f} ", shown)
    saved = files.read_jsonl(output)
    assert [row["predicted"] for row in saved] == ["joy"] * 4
    assert saved[0]["probabilities"] == pytest.approx({"joy": 0.6, "anger": 0.4})
    assert sorted(path for run in (first, second) for path in run.rglob("*")) == before
    with pytest.raises(UserError, match="explain=leave_one_out is for one run, and 2 vote"):
        evaluate(configured(f"run='{first},{second}'", "explain=leave_one_out", verb="evaluate"))
    with pytest.raises(UserError, match="gets its own"):
        evaluate(configured(f"run='{first},{second}'", f"output={second}/vote.jsonl", verb="evaluate"))
    other = tested("c", {"joy": 0.3, "anger": 0.7}, rows[1:], {})
    with pytest.raises(UserError, match="were not scored on the same rows: 4 rows against 3"):
        evaluate(configured(f"run='{first},{other}'", verb="evaluate"))


def test_runs_that_cannot_vote_are_refused_before_one_scores_new_rows(tested: Make, tmp_path: Path) -> None:
    rows = [("so", "joy")]
    first = tested("a", {"joy": 0.6, "anger": 0.4}, rows, {"f1": 0.5})
    second = tested("b", {"joy": 0.6, "fear": 0.4}, rows, {"f1": 0.5})
    (tmp_path / "new.csv").write_text("text,label\nso,joy\n")
    with pytest.raises(UserError, match=f"{first} and {second} cannot vote together: the labels differ: anger, fear"):
        evaluate(configured(f"run='{first},{second}'", f"data.path={tmp_path}/new.csv", verb="evaluate"))
    assert not list(first.rglob("*new*"))


def test_a_vote_is_of_the_groups_that_any_of_its_runs_tells(tested: Make) -> None:
    rows = [(f"text {i}", "joy" if i % 8 < 4 else "anger") for i in range(40)]
    pair = [tested(name, {"joy": 0.7, "anger": 0.3}, rows, {"loss": 0.5}) for name in "ab"]
    alone = evaluate_together([str(run) for run in pair], {"split": "test", "output": None, "data": {}})[1]
    path = pair[1] / "predictions/test.jsonl"
    files.write_jsonl(path, [{**row, "group": f"g{i // 4}"} for i, row in enumerate(files.read_jsonl(path))])
    for folders in (pair, pair[::-1]):
        own = evaluate_together([str(run) for run in folders], {"split": "test", "output": None, "data": {}})[1]
        (low, high), (narrow, wide) = (one["intervals"]["test/accuracy"] for one in (own, alone))
        assert high - low > 1.5 * (wide - narrow)


@pytest.mark.parametrize(
    ("task", "opinions", "rows", "right"),
    [
        ("multi_label", ({"a": 0.9, "b": 0.2}, {"b": 0.4, "a": 0.3}), [("so", ["a"]), ("no", ["a", "b"])], 2 / 3),
        ("token", ({"NOUN": 0.9, "VERB": 0.1}, {"VERB": 0.6, "NOUN": 0.4}),
         [(["a", "\u200b"], ["NOUN", "NOUN"]), (["b"], ["VERB"]), (["c", "d"], ["NOUN", "NOUN"])], 3 / 5),
    ],
)  # fmt: skip
def test_votes_of_every_task_are_scored(
    task: Task, opinions: tuple[dict[str, float], ...], rows: Any, right: float, tested: Make
) -> None:
    members = [tested(f"run{i}", opinion, rows, {"loss": 1.0}, task) for i, opinion in enumerate(opinions)]
    settings = {"split": "test", "output": None, "data": {}}
    count, metrics = evaluate_together([str(run) for run in members], settings)
    assert count == len(rows)
    assert metrics["test/recall_micro" if task == "multi_label" else "test/accuracy"] == pytest.approx(right)
    assert metrics["test/loss"] > 0

"""What a run leaves behind can be used without thaw, and tells the truth."""

import csv
import html
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from conftest import Fitted, configured
from thaw import files, runs
from thaw.errors import UserError
from thaw.evaluation import evaluate, evaluate_run
from thaw.inference.export import export
from thaw.inference.labelling import label
from thaw.inference.predictor import Predictor
from thaw.models.module import EncoderModule
from thaw.reporting.run_page import page_path, write_own_page
from thaw.training.fit import fit

pytestmark = pytest.mark.usefixtures("no_pages")

Encoders = Callable[[str], Path]


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "modernbert"])
def test_pipeline_gives_the_labels_and_scores_of_predict(architecture: str, fitted: Fitted) -> None:
    from transformers import pipeline

    run = fitted(architecture)
    texts = ["i am happy", "what a terrible day", "!", "émoji 🎉 and שלום"]
    ours = Predictor.from_run(run)(texts, probabilities=True)
    theirs = pipeline("text-classification", model=str(run / "model"), top_k=None)(texts)
    for own, other in zip(ours, theirs, strict=True):
        scores = {row["label"]: row["score"] for row in other}
        assert own["label"] == max(scores, key=lambda name: scores[name])
        assert own["probabilities"] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("truncation", ["start", "middle", "windows"])
def test_what_is_cut_of_long_texts_is_the_same_everywhere(
    truncation: str, fitted: Fitted, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import pipeline

    run = fitted("distilbert", "data=imdb_sample", "data.max_length=16", f"data.truncation={truncation}")
    saved = [json.loads(line) for line in (run / "predictions/test.jsonl").open(encoding="utf-8")]
    texts = [row["text"] for row in saved]
    evaluate(configured(f"run={run}", "baselines=false", verb="evaluate"))
    again = [json.loads(line) for line in (run / "predictions/test.jsonl").open(encoding="utf-8")]
    assert [row["probabilities"] for row in again] == [pytest.approx(row["probabilities"]) for row in saved]
    export(configured(f"run={run}", "format=onnx", verb="export"))
    label(configured(f"run={run}", f"text={json.dumps(texts[0])}", verb="predict"))
    said = f"note: the text has more than 16 tokens, and the {truncation} was not read"
    assert (said in capsys.readouterr().err) == (truncation != "windows")
    for backend in ("torch", "onnx"):
        found = Predictor.from_run(run, backend=backend)(texts, probabilities=True)
        assert [row["probabilities"] for row in found] == [
            pytest.approx(row["probabilities"], abs=1e-4) for row in saved
        ]
    if truncation == "start":  # tokenizers do not cut the middle
        theirs = pipeline("text-classification", model=str(run / "model"), top_k=None)(texts, truncation=True)
        for own, other in zip(saved, theirs, strict=True):
            assert own["probabilities"] == pytest.approx({row["label"]: row["score"] for row in other}, abs=1e-5)


def test_long_sentences_are_learnt_to_their_end(encoders: Encoders, tmp_path: Path) -> None:
    """Every entity stands beyond what the encoder reads at once; validations while training see it, too."""
    rng = random.Random(0)
    for split, count in (("train", 60), ("validation", 20), ("test", 20)):
        rows = []
        for _ in range(count):
            words = [f"{rng.choice('cdef')} O" for _ in range(40)]
            words[rng.randrange(20, 38)] = "a B-PER"
            rows.append("\n".join(words))
        (tmp_path / f"{split}.conll").write_text("\n\n".join(rows))
    settings = [
        f"data.path={tmp_path}",
        "data=conll",
        "data.max_length=12",
        "data.epochs=10",
        "optimizer.lr=1e-2",
        "data.batch_size=8",
        "model.dropout=0",  # with it, it is up to the seed whether so small an encoder learns anything
    ]
    run = tmp_path / "run"
    fit(configured(f"model.name={encoders('bert')}", *settings), run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test/f1"] > 0.9
    assert metrics["best"]["score"] == pytest.approx(metrics["validation/f1"])
    splits = json.loads((run / "data.json").read_text())["splits"]
    assert (splits["train"]["windowed"], splits["train"]["rows"], splits["train"]["tokenless"]) == (1, 60, 0)


def test_pipeline_gives_the_entities_of_predict(fitted: Fitted) -> None:
    from transformers import pipeline

    run = fitted("bert_cased", "data=conll2003_sample", "data.epochs=6", "loss=balanced")
    texts = ["Anna Kowalska of Poland won the Berlin Open .", "FC Lisbon beat Northern Rail in Paris."]
    ours = Predictor.from_run(run)(texts)
    theirs = pipeline("token-classification", model=str(run / "model"), aggregation_strategy="first")(texts)
    assert any(own["entities"] for own in ours), "a model that finds nothing would prove nothing"
    for own, other in zip(ours, theirs, strict=True):
        assert [(one["type"], one["start"], one["end"]) for one in own["entities"]] == [
            (one["entity_group"], one["start"], one["end"]) for one in other
        ]
        assert [one["score"] for one in own["entities"]] == pytest.approx(
            [float(one["score"]) for one in other], abs=1e-5
        )


@pytest.mark.parametrize("freeze", ["lora", "dora", "ia3", "bitfit", "head"])
def test_checkpoints_hold_what_trains_and_the_model_is_whole(freeze: str, fitted: Fitted) -> None:
    run = fitted("distilbert", f"freeze={freeze}")
    table = json.loads((run / "parameters.json").read_text())
    state = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert sum(value.numel() for value in state.values()) == sum(row["trainable"] for row in table)
    adapter = run / "adapter/adapter_model.safetensors"
    assert adapter.is_file() == (freeze in ("lora", "dora", "ia3"))
    if adapter.is_file():
        name = runs.load_config(run).model.name
        assert json.loads((run / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == name
        assert adapter.stat().st_mode & 0o444 == 0o444
        base = AutoModelForSequenceClassification.from_pretrained(name, num_labels=6)
        alone = PeftModel.from_pretrained(base, run / "adapter").merge_and_unload()
        merged = AutoModelForSequenceClassification.from_pretrained(run / "model")
        for parameter, value in merged.state_dict().items():
            torch.testing.assert_close(alone.state_dict()[parameter], value, rtol=1e-4, atol=1e-5)
    metrics = json.loads((run / "metrics.json").read_text())
    # The network in training and the one saved, adapters merged, are the same function.
    with (run / "history.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    best = max(rows, key=lambda row: (float(row["val/f1"]), -float(row["val/loss"])))
    assert metrics["validation/loss"] == pytest.approx(float(best["val/loss"]), rel=1e-4)


def test_multi_label_runs_choose_thresholds(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    rows = [
        {
            "text": f"row {i} {'happy ' * (i % 2)}{'angry ' * (i % 3 == 0)}",
            "labels": ["joy"] * (i % 2) + ["anger"] * (i % 3 == 0),
        }
        for i in range(120)
    ]
    path = tmp_path / "moods.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    fit(
        configured(
            f"model.name={encoders('bert')}", "data=jsonl", f"data.path={path}", "data.epochs=4", "optimizer.lr=1e-2"
        ),
        run,
    )
    saved = json.loads((run / "labels.json").read_text())
    assert saved["task"] == "multi_label"
    assert len(saved["thresholds"]) == 2
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"test/f1_micro", "test/f1_macro", "test/subset_accuracy", "test/map"} <= set(metrics)
    (result,) = Predictor.from_run(run)(["happy and angry"])
    assert set(result) == {"text", "labels", "scores"}


def test_predict_keeps_the_columns_of_a_table_and_tells_of_rows_without_text(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from thaw.inference.labelling import label

    (tmp_path / "in.csv").write_text(
        'id,text,label\n1,"I am happy, really",x\n2,,y\n3,"line\nbreak",z\n', encoding="utf-8"
    )
    settings = [f"run={fitted('distilbert')}", f"input={tmp_path}/in.csv", f"output={tmp_path}/out.csv"]
    label(configured(*settings, verb="predict"))
    assert "warning: 1 of 3 rows hold no text" in capsys.readouterr().err
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert [row["label"] for row in rows] == ["x", "y", "z"]
    assert [bool(row["predicted_label"]) for row in rows] == [True, False, True]
    assert [bool(row["score"]) for row in rows] == [True, False, True]


def test_predict_does_not_write_over_its_input(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thaw.inference.labelling import label

    (tmp_path / "in.csv").write_text("text\nI am happy\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    for output in (f"{tmp_path}/in.csv", f"{tmp_path}/link.csv", "'~/in.csv'"):
        settings = [f"run={fitted('distilbert')}", f"input={tmp_path}/in.csv", f"output={output}"]
        with pytest.raises(UserError, match="this is the input"):
            label(configured(*settings, verb="predict"))
    assert (tmp_path / "in.csv").read_text() == "text\nI am happy\n"


@pytest.mark.parametrize("name", ["labels.json", "config.yaml", "model/model.safetensors", "model/config.json"])
def test_a_damaged_file_of_a_run_is_named(name: str, fitted: Fitted, tmp_path: Path) -> None:

    run = shutil.copytree(fitted("distilbert"), tmp_path / "run")
    (run / name).write_text("{")
    with pytest.raises(UserError, match=f"{name.partition('/')[0]}: damaged: "):
        Predictor.from_run(run)


def test_a_run_that_lost_its_model_can_be_made_again(fitted: Fitted, tmp_path: Path) -> None:
    from thaw.runs import open_unfinished

    run = shutil.copytree(fitted("distilbert"), tmp_path / "run")
    with pytest.raises(UserError, match="finished"):
        open_unfinished(run)
    shutil.rmtree(run / "model")
    with pytest.raises(UserError, match=r"model is missing.*resume="):
        Predictor.from_run(run)
    assert open_unfinished(run) == run


@pytest.mark.parametrize(("steps", "validated"), [(3, [3]), (8, [8]), (11, [8, 11])])
def test_the_last_step_is_validated_wherever_it_is(
    steps: int, validated: list[int], encoders: Callable[[str], Path], tmp_path: Path
) -> None:
    from thaw.training.fit import fit

    settings = ["data.train_size=64", "data.eval_size=24", "data.batch_size=8", "data.epochs=2"]
    fit(configured(f"model.name={encoders('distilbert')}", *settings, f"trainer.max_steps={steps}"), tmp_path)
    write_own_page(tmp_path)
    assert (tmp_path / "report.html").is_file()
    with (tmp_path / "history.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["val/loss"]] == validated


def test_predict_reads_json_lines_and_names_a_bad_one(fitted: Fitted, tmp_path: Path) -> None:
    from thaw.files import read_jsonl
    from thaw.inference.labelling import label

    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 1, "text": "I am happy"}\n\n{"id": 2, "text": null}\n{"id": 3, "text": "\\ud83d"}\n')
    config = configured(f"run={fitted('distilbert')}", f"input={source}", f"output={output}", verb="predict")
    label(config)
    assert [row["id"] for row in read_jsonl(output)] == [1, 2, 3]
    before = output.read_text()
    source.write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(UserError, match=r"in\.jsonl:2: not valid JSON"):
        label(config)
    assert output.read_text() == before, "an output that is complete is not replaced by half of one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_reproduces_the_figures_to_the_last_digit(split: str, fitted: Fitted, tmp_path: Path) -> None:
    from thaw.evaluation import evaluate_run

    run = fitted("distilbert")
    settings = {"run": str(run), "split": split, "output": str(tmp_path / "again.jsonl"), "data": {"path": None}}
    before = (run / "predictions" / f"{split}.jsonl").read_text()
    name, rows, values = evaluate_run(settings)
    page = html.unescape(page_path(run, name).read_text(encoding="utf-8"))
    assert values["advice"]
    assert all(line in page for line in values["advice"]), "the terminal says what the page does"
    assert (name, rows) == (split, len(before.splitlines()))
    metrics = json.loads((run / "metrics.json").read_text())
    # JSON has no nan: a figure that is not defined, such as the AUC without every label, is null.
    assert {name: value if value == value else None for name, value in values.items() if "/" in name} == {
        name: value for name, value in metrics.items() if name.startswith(f"{split}/")
    }
    assert values["intervals"] == {
        name: pair for name, pair in metrics["intervals"].items() if name.startswith(f"{split}/")
    }
    assert (tmp_path / "again.jsonl").read_text() == (run / "predictions" / f"{split}.jsonl").read_text() == before


@pytest.mark.parametrize("settings", [(), ("data=conll2003_sample",)], ids=["texts", "words"])
def test_a_run_can_be_scored_on_the_rows_it_was_trained_on(
    settings: tuple[str, ...], fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are read again, and no longer to be had once the data has changed."""
    run = shutil.copytree(fitted("distilbert", *settings), tmp_path / "run")
    evaluate(configured(f"run={run}", "split=train", verb="evaluate"))
    assert "These are the rows that the run was trained on." in capsys.readouterr().out
    rows = files.read_jsonl(run / "predictions/train.jsonl")
    assert len(rows) == files.read_json(run / "data.json")["splits"]["train"]["rows"]
    file, line = rows[0]["place"].split(":")
    stands = (Path(runs.load_config(run).data.path) / file).read_text().splitlines()[int(line) - 1]
    assert stands.startswith(rows[0]["words"][0] if "words" in rows[0] else rows[0]["text"])
    assert (run / "report-train.html").is_file()
    known = files.read_json(run / "data.json")
    known["splits"]["train"]["fingerprint"] = "another"
    files.write_json(run / "data.json", known)
    with pytest.raises(UserError, match="the training data has changed since the run"):
        evaluate(configured(f"run={run}", "split=train", verb="evaluate"))


def test_a_run_without_baselines_keeps_its_notes_when_it_is_evaluated(fitted: Fitted, tmp_path: Path) -> None:
    run = shutil.copytree(fitted("distilbert"), tmp_path / "run")
    metrics = files.read_json(run / "metrics.json")
    files.write_json(run / "metrics.json", {**metrics, "baselines": {"test": {}}, "notes": ["A note of its own."]})
    for wanted in (False, True):
        settings = {"run": str(run), "split": "test", "output": None, "data": {"path": None}, "baselines": wanted}
        own = evaluate_run(settings)[2]
        assert own["notes"] == ["A note of its own."]
        assert set(own["baselines"]["test"]) == (set(metrics["baselines"]["test"]) if wanted else set())
        assert "A note of its own." in (run / "report.html").read_text()


def test_evaluate_on_new_data_with_the_same_labels(
    fitted: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from thaw.evaluation import evaluate_run
    from thaw.reporting.run_page import page_path

    (tmp_path / "new.csv").write_text(
        "body;mood\ni am happy;joy\ni am sad;sadness\n".replace(";", ","), encoding="utf-8"
    )
    run = fitted("distilbert")
    base = {"run": str(run), "split": "test", "output": None}
    named = {"path": str(tmp_path / "new.csv"), "label_column": "mood"}
    name, rows, values = evaluate_run({**base, "data": named})
    assert (name, rows) == ("new", 2)
    saved = files.read_json(run / "metrics-new.json")
    assert (saved["rows"], saved["new/accuracy"]) == (2, values["new/accuracy"])
    assert saved["baselines"]["new"].keys() == values["baselines"]["new"].keys() != set()
    (tmp_path / "corrected.csv").write_text("text,label,score\ni am happy,joy,0.9\n")
    other = shutil.copytree(run, tmp_path / "other")
    config = runs.load_config(other)
    config.data.text_column, config.data.label_column = "body", "mood"
    runs.save_config(other, config)
    own = {"run": str(other), "split": "test", "output": None, "baselines": False}
    with caplog.at_level("INFO"):
        assert evaluate_run({**own, "data": {"path": str(tmp_path / "corrected.csv")}})[:2] == ("corrected", 1)
    assert "no column 'mood' as in the run; 'label' is read." in caplog.text
    assert "no column 'body' as in the run; 'text' is read." in caplog.text
    with pytest.raises(UserError, match="no column 'mood'; it has: text, label, score"):
        evaluate_run({**own, "data": {"path": str(tmp_path / "corrected.csv"), "text_column": "text"}})
    (tmp_path / "only").mkdir()
    (tmp_path / "only/test.txt").write_text("i am happy;joy\ni am sad;sadness\n", encoding="utf-8")
    (tmp_path / "only/train.txt").write_text("no label\n")  # of a split that is not evaluated
    *_, values = evaluate_run({**base, "data": {"path": str(tmp_path / "only")}})
    assert "only_test/accuracy" in values
    name, *_ = evaluate_run({**base, "data": {"path": str(tmp_path / "only/test.txt")}})
    assert name == "new_test", "the run's own test rows are kept"
    (tmp_path / "train.txt").write_text("i am happy;joy\n", encoding="utf-8")
    name, *_ = evaluate_run({**base, "data": {"path": str(tmp_path / "train.txt")}})
    assert name == "new_train", "whether the run has such rows or not"
    (tmp_path / "odd.csv").write_text("text,label\ni am happy,bliss\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"odd\.csv:2: the label 'bliss' is unknown"):
        evaluate_run({**base, "data": {"path": str(tmp_path / "odd.csv")}})
    with (tmp_path / "odd.csv").open("a") as file:
        file.write("i am sad,sadness\n")
    *_, values = evaluate_run({**base, "data": {"path": str(tmp_path / "odd.csv"), "on_bad_row": "skip"}})
    assert values["notes"][0].startswith(f"Rows skipped: 1 of 2, such as {tmp_path}/odd.csv:2: ")
    assert values["notes"][0] in page_path(run, "odd").read_text().replace("&#39;", "'")
    (tmp_path / "tags.conll").write_text("Anna B-PER\n")
    with pytest.raises(
        UserError, match=r"tags\.conll: each row has a list of words with a tag each\. The run needs rows with one"
    ):
        evaluate_run({**base, "data": {"path": str(tmp_path / "tags.conll")}})
    again = {"path": str(tmp_path / "new.csv"), "label_column": "mood"}
    assert evaluate_run({**base, "data": again})[0] == "new", "the same texts"
    (tmp_path / "new.csv").write_text("body,mood\ni am happy today,joy\n")
    assert evaluate_run({**base, "data": again})[0] == "new_2", "others of the same name"
    assert len(files.read_jsonl(run / "predictions/new.jsonl")) == 2
    with pytest.raises(UserError, match="this lies in the data of the run"):
        evaluate_run({**base, "output": f"{runs.load_config(run).data.path}/own.jsonl", "data": {"path": None}})


def test_evaluate_says_which_rows_the_run_was_trained_on(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import Dataset

    from thaw.evaluation import evaluate
    from thaw.reporting.run_page import page_path

    run = fitted("distilbert")
    seen = files.read_jsonl(run / "predictions/test.jsonl")[:3]
    train = Path(runs.load_config(run).data.path) / "train.txt"
    lines = [f"{row['text']};{row['label']}" for row in seen]
    shuffled = Dataset.from_dict({"line": train.read_text().splitlines()}).shuffle(seed=42)  # as data.train_size
    lines += shuffled["line"][:4]
    (tmp_path / "mixed.txt").write_text("".join(f"{line}\n" for line in lines))
    evaluate(configured(f"run={run}", f"data.path={tmp_path}/mixed.txt", verb="evaluate"))
    said = "The run was trained on 4 of these 7 texts."
    shown = capsys.readouterr().out
    assert 0 <= shown.index(said) < shown.index("Metrics, 7 rows"), "what the table is to be read with comes first"
    assert said in page_path(run, "mixed").read_text()
    evaluate(configured(f"run={run}", "split=validation", verb="evaluate"))
    assert capsys.readouterr().out.startswith("The validation rows picked the checkpoint, so the metrics are optimist")


def test_classes_are_balanced_by_windows_in_training_and_by_texts_in_every_other_loss(
    encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(*arguments: Any) -> EncoderModule:
        given.append(arguments)
        return EncoderModule(*arguments)

    given: list[Any] = []
    monkeypatch.setattr("thaw.training.fit.EncoderModule", noted)
    lines = [f"so sad {i},no\n{'so happy ' * 30}{i},yes\n" for i in range(20)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(lines))
    settings = ["data=csv", f"data.path={tmp_path}/rows.csv", "data.epochs=2", "monitor=val/loss", "mode=min"]
    also = ["data.truncation=windows", "data.max_length=16", "loss=balanced", "optimizer.lr=1e-2"]
    fit(configured(f"model.name={encoders('bert')}", *settings, *also), tmp_path / "run")
    _, labels, *_, learnt = given[0]
    assert labels.counts[0] == labels.counts[1]
    assert learnt.counts[1] > 3 * learnt.counts[0]
    metrics = files.read_json(tmp_path / "run/metrics.json")
    assert metrics["validation/loss"] == pytest.approx(metrics["best"]["score"], rel=1e-4)


def test_runs_vote_on_new_rows_after_each_has_scored_them(
    encoders: Encoders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [tmp_path / f"fold-{fold}" for fold in (1, 2)]
    settings = ["data.epochs=1", "data.folds=2", "data.train_size=60", "baselines=false"]
    for fold, run in enumerate(own, start=1):
        fit(configured(f"model.name={encoders('bert')}", f"data.fold={fold}", *settings), run)
    (tmp_path / "checked.csv").write_text("text,label\nso happy,joy\nso sad,sadness\nso angry,anger\n")
    both = f"run='{own[0]},{own[1]}'"
    with pytest.raises(UserError, match="the runs of folds have other rows each"):
        evaluate(configured(both, verb="evaluate"))
    evaluate(configured(both, f"data.path={tmp_path}/checked.csv", f"output={tmp_path}/vote.jsonl", verb="evaluate"))
    shown = capsys.readouterr().out
    assert "Metrics of 2 runs that vote, 3 rows" in " ".join(shown.split())
    alone = [files.read_json(run / "metrics-checked.json")["checked/loss"] for run in own]
    line = next(line.split() for line in shown.splitlines() if line.split()[:1] == ["loss"])
    assert [float(value) for value in line[-2:]] == pytest.approx(sorted(alone), abs=1e-4)
    assert [row["label"] for row in files.read_jsonl(tmp_path / "vote.jsonl")] == ["joy", "sadness", "anger"]


def test_rows_are_not_skipped_because_the_run_skipped_some(fitted: Fitted, tmp_path: Path) -> None:
    from thaw.evaluation import evaluate

    run = fitted("distilbert", "data.on_bad_row=skip")
    (tmp_path / "odd.csv").write_text("text,label\ni am happy,bliss\ni am sad,sadness\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"odd\.csv:2: the label 'bliss' is unknown"):
        evaluate(configured(f"run={run}", f"data.path={tmp_path}/odd.csv", verb="evaluate"))


def test_a_run_says_which_test_rows_it_was_trained_on(
    encoders: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from thaw.evaluation import evaluate
    from thaw.training.fit import fit

    caplog.set_level("INFO")
    rows = [f"{mood} text {i};{mood}\n" for i in range(8) for mood in ("joy", "fear")]
    for split, own in (("train", rows), ("val", rows[:4]), ("test", [*rows[:3], "a new text;joy\n"])):
        (tmp_path / f"{split}.txt").write_text("".join(own))
    own = [f"model.name={encoders('distilbert')}", "data=txt", f"data.path={tmp_path}", "data.epochs=1"]
    fit(configured(*own), tmp_path / "run")
    said = "The run was trained on 3 of these 4 texts."
    assert said in caplog.text
    write_own_page(tmp_path / "run")
    assert said in (tmp_path / "run/report.html").read_text()
    evaluate(configured(f"run={tmp_path}/run", verb="evaluate"))
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "run/report.html").read_text()


def test_a_run_that_goes_on_from_another_says_which_rows_and_labels_that_one_knows(
    fitted: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = shutil.copytree(fitted("distilbert"), tmp_path / "first")
    lines = (Path(runs.load_config(first).data.path) / "train.txt").read_text().splitlines()
    seen = {f"{row['text']};{row['label']}" for row in files.read_jsonl(first / "predictions/test.jsonl")}
    (tmp_path / "test.txt").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "train.txt").write_text("".join(f"{line}\n" for line in [*seen, "a new text;bliss", "and one;bliss"]))
    (tmp_path / "val.txt").write_text("one more;bliss\nand this;joy\n")

    def go_on(model: Path, folder: Path) -> None:
        fit(configured(f"model.name={model}", "data=txt", f"data.path={tmp_path}", "data.epochs=1"), folder)

    go_on(first / "model", tmp_path / "second")
    names = files.read_json(first / "labels.json")["names"]
    assert f"The head of {runs.display(first)}/model is kept for {len(names)} labels; new to it: bliss." in caplog.text
    said = f"The encoder comes from {runs.display(first)}, which was trained on 64 of these {len(lines)} texts."
    assert said in caplog.text
    write_own_page(tmp_path / "second")
    assert said in (tmp_path / "second/report.html").read_text()
    (tmp_path / "train.txt").write_text((tmp_path / "train.txt").read_text().replace("and one;bliss", "and two;bliss"))
    go_on(tmp_path / "second/model", tmp_path / "third")
    notes = files.read_json(tmp_path / "third/metrics.json")["notes"]
    assert notes[0] == (
        f"Whether {runs.display(tmp_path / 'second')}, from which the encoder comes, was trained on some of these "
        f"{len(lines)} texts is not known: the training data has changed since the run. Restore it. Earlier "
        "versions also divided files otherwise."
    )
    assert notes[1] == said


@pytest.mark.parametrize("baselines", [True, False])
def test_rows_known_from_training_are_told_without_baselines(
    baselines: bool, fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are not asked for, or the encoder is out of reach."""
    from thaw import evaluation

    def out_of_reach(_: object) -> Path:
        raise UserError("the encoder is not here")

    monkeypatch.setattr(evaluation, "locate_encoder", out_of_reach)
    run = fitted("distilbert")
    known = shutil.copy(Path(runs.load_config(run).data.path) / "train.txt", tmp_path / f"known_{baselines}.txt")
    settings = {"run": str(run), "split": "test", "output": None, "baselines": baselines}
    *_, own = evaluation.evaluate_run({**settings, "data": {"path": str(known)}})
    assert own["notes"][0].startswith("The run was trained on 64 of these ")


def test_what_is_known_of_rows_is_kept_when_their_predictions_go_elsewhere(fitted: Fitted, tmp_path: Path) -> None:
    """Else another file of the same name would take their page, and whatever else bears the name."""
    from thaw.evaluation import evaluate_run

    run = fitted("distilbert")
    base = {"run": str(run), "split": "test", "output": str(tmp_path / "own.jsonl"), "baselines": False}
    for folder, mood in (("one", "joy"), ("two", "anger")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text(f"i am in {folder};{mood}\n")
        evaluate_run({**base, "data": {"path": str(tmp_path / folder / "same.txt")}})
    pages = [(run / f"report-{name}.html").read_text() for name in ("same", "same_2")]
    assert ["i am in one" in page for page in pages] == [True, False]
    assert (tmp_path / "own.jsonl").read_text() == (run / "predictions/same_2.jsonl").read_text()


def test_evaluate_writes_where_it_is_told(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thaw.evaluation import evaluate

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    evaluate(configured(f"run={fitted('distilbert')}", "output='~/own.jsonl'", verb="evaluate"))
    assert (tmp_path / "own.jsonl").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("new.jsonl", "this is data.path"),
        ("other.csv", "are JSON lines"),
        (".", "are JSON lines"),
        ("new.jsonl/other.jsonl", "this lies in data.path"),
        ("file/other.jsonl", "cannot be written: "),
        ("run/predictions/test.jsonl", "this lies in the run folder, which gets its own"),
    ],
)
def test_evaluate_writes_over_no_data(output: str, said: str, fitted: Fitted, tmp_path: Path) -> None:
    from thaw.evaluation import evaluate

    (tmp_path / "new.jsonl").write_text('{"text": "i am happy", "label": "joy"}\n')
    (tmp_path / "file").touch()
    (tmp_path / "run").symlink_to(fitted("distilbert"))
    places = [f"run={fitted('distilbert')}", f"data.path={tmp_path}/new.jsonl", f"output={tmp_path}/{output}"]
    with pytest.raises(UserError, match=said):
        evaluate(configured(*places, verb="evaluate"))
    assert "happy" in (tmp_path / "new.jsonl").read_text()


def test_a_run_that_cleaned_its_texts_cleans_those_it_predicts(fitted: Fitted) -> None:
    from thaw.inference.predictor import Predictor

    plain, marked = Predictor.from_run(fitted("distilbert", "data.clean_html=true"))(
        ["i am so happy & glad", "<p>i am<br/>so <b>happy</b> &amp; glad</p>"]
    )
    assert plain == marked
    kept = Predictor.from_run(fitted("distilbert"))(["<b>happy</b>"])
    assert kept[0]["text"] == "<b>happy</b>"


def test_the_config_says_the_precision_that_auto_became(fitted: Fitted) -> None:
    run = fitted("distilbert", "trainer.precision=auto", "trainer.accelerator=cpu")
    assert runs.load_config(run).trainer.precision == "32-true"


def test_the_history_tells_the_rate_of_the_head_where_it_has_its_own(fitted: Fitted) -> None:
    with (fitted("distilbert", "optimizer.head_lr=0.05", "trainer.log_every=1") / "history.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["learning_rate"]]
    assert [float(row["learning_rate/head"]) for row in rows] == pytest.approx(
        [5 * float(row["learning_rate"]) for row in rows]
    )
    with (fitted("distilbert") / "history.csv").open() as file:
        assert "learning_rate/head" not in next(csv.reader(file))


def test_intervals_of_rows_with_groups_are_of_whole_groups(encoders: Encoders, tmp_path: Path) -> None:
    rows = [
        f"i am {'happy' if i % 3 else 'sad'} {i},{'joy' if i % 3 else 'grief'},customer {i // 4}" for i in range(160)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,who", *rows]))
    settings = [f"model.name={encoders('bert')}", "data=csv", f"data.path={tmp_path}/a.csv", "data.group_column=who"]
    fit(configured(*settings, "data.epochs=1", "optimizer.lr=1e-2"), tmp_path / "run")
    saved = [json.loads(line) for line in (tmp_path / "run/predictions/test.jsonl").open()]
    groups = len({row["group"] for row in saved})
    assert groups < len(saved)
    before = files.read_json(tmp_path / "run/metrics.json")
    write_own_page(tmp_path / "run")
    assert f"resamples of {groups} whole groups; of so few groups" in (tmp_path / "run/report.html").read_text()
    *_, own = evaluate_run({"run": str(tmp_path / "run"), "split": "test", "output": None, "data": {}})
    assert own["intervals"] == {name: pair for name, pair in before["intervals"].items() if name.startswith("test/")}
    again = [json.loads(line) for line in (tmp_path / "run/predictions/test.jsonl").open()]
    assert [row["group"] for row in again] == [row["group"] for row in saved]
    csv_rows = "".join(f"{row['text']},{row['label']},{row['group']}\n" for row in saved)
    (tmp_path / "new.csv").write_text("text,label,who\n" + csv_rows)
    settings = {"run": str(tmp_path / "run"), "split": "test", "output": None, "baselines": False}
    *_, new = evaluate_run({**settings, "data": {"path": str(tmp_path / "new.csv")}})
    assert new["intervals"]["new/accuracy"] == before["intervals"]["test/accuracy"]
    assert {row["group"] for row in files.read_jsonl(tmp_path / "run/predictions/new.jsonl")} == {
        row["group"] for row in saved
    }

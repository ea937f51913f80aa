"""Explanations by the real scripts: JSON lines, pages, the terminal."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import Fitted, Run, configured
from thaw import files
from thaw.evaluation import evaluate_run
from thaw.files import read_jsonl
from thaw.inference.explanation import explain
from thaw.inference.predictor import Predictor
from thaw.reporting.explanations import plot, write_explanations
from thaw.training.fit import fit

NASTY = '<script>alert("joy")</script> so \u202ehappy & {{ 7 * 7 }} \x1b[31m 🎉'
SETTINGS = {"split": "test", "output": None, "data": {"path": None}, "explain_evaluations": 20}


@pytest.mark.parametrize("method", ["shap", "integrated_gradients", "leave_one_out"])
def test_predict_explains_a_text(method: str, fitted: Fitted, script: Run, tmp_path: Path) -> None:
    run = fitted("distilbert")
    done = script("predict.py", f"run={run}", "text=I can't say how happy I am", f"explain={method}")
    found = json.loads(done.stdout)
    assert found["explanation"]["method"] == method
    words = [found["text"][start:end] for start, end in found["explanation"]["words"]]
    assert words == ["I", "can't", "say", "how", "happy", "I", "am"]
    (best, *_), plain = found["explanation"]["targets"], Predictor.from_run(run)([found["text"]])[0]
    assert (best["name"], best["probability"]) == (plain["label"], pytest.approx(plain["score"], abs=1e-5))
    assert done.stderr.strip() == "Explanations  outputs/explanation.html"
    assert "comprehensiveness" in (tmp_path / "outputs/explanation.html").read_text()


def test_predict_explains_a_table(fitted: Fitted, script: Run, tmp_path: Path) -> None:
    texts = ["I am happy", "", "one", "happy " * 200]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = [f"run={fitted('bert_cased', 'data=conll2003_sample')}", "explain=leave_one_out", "input=in.jsonl"]
    script("predict.py", *options, "output=out.csv", "explain_page=why/page.html")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = [json.loads(row["explanation"]) for row in csv.DictReader(file)]
    assert [len(row["words"]) for row in rows[:3]] == [3, 0, 1]
    assert rows[3]["unread"][0][1] == len(texts[3].rstrip())
    page = (tmp_path / "why/page.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 4
    assert "is not explained" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["explain=lime"], "explain=lime is not one of: shap, integrated_gradients, leave_one_out"),
        (["explain=integrated_gradients", "backend=onnx"], "explain=integrated_gradients needs gradients"),
        (["explain=shap", "explain_evaluations=0"], "explain_evaluations=0 is not a whole number of at least 1"),
        (["explain=leave_one_out", "explain_page=in.csv"], "explain_page=in.csv is not a file name that ends in .html"),
        (["batch_size=0"], "batch_size=0 is not a whole number of at least 1"),
        (
            ["explain=leave_one_out", "explain_page=/dev/null/page.html"],
            "error: /dev/null/page.html: cannot be written: ",
        ),
    ],
)
def test_mistakes_are_one_line(options: list[str], said: str, fitted: Fitted, script: Run) -> None:
    done = script("predict.py", f"run={fitted('distilbert')}", "text=so", *options, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_evaluate_explains_rows_worth_reading(fitted: Fitted, script: Run) -> None:
    run = fitted("distilbert")
    done = script("evaluate.py", f"run={run}", "explain=shap", "explain_rows=4", "explain_evaluations=20")
    assert "explanations.html" in done.stdout
    rows, predictions = read_jsonl(run / "explanations.jsonl"), read_jsonl(run / "predictions/test.jsonl")
    assert len(rows) == 4
    for row in rows:
        prediction = predictions[row["row"] - 1]
        assert (row["text"], row["predicted"]) == (prediction["text"], prediction["predicted"])
        assert row["why"]
        shown = {one["name"]: one["probability"] for one in row["explanation"]["targets"]}
        assert shown == pytest.approx({name: prediction["probabilities"][name] for name in shown}, abs=1e-4)
    page = (run / "explanations.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 4
    assert 'href="explanations.html"' in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("rows", [0, 3])
def test_evaluate_explains_entities(rows: int, fitted: Fitted) -> None:
    run = fitted("bert_cased", "data=conll2003_sample")
    evaluate_run({"run": str(run), **SETTINGS, "split": "validation", "explain": "leave_one_out", "explain_rows": rows})
    found = read_jsonl(run / "explanations-validation.jsonl")
    assert len(found) <= rows
    for row in found:
        assert row["text"] == " ".join(row["words"])
        assert len(row["explanation"]["words"]) == len(row["words"])
        assert row["explanation"]["targets"]
    assert (run / "explanations-validation.html").is_file()


def test_several_labels_are_explained_one_by_one(encoders: Callable[[str], Path], tmp_path: Path) -> None:
    moods = [{"text": f"{i} {'happy ' * (i % 2)}", "labels": ["joy"] * (i % 2) + ["odd"] * (i % 3)} for i in range(60)]
    moods = [{**row, "labels": sorted(set(row["labels"]))} for row in moods]
    files.write_jsonl(tmp_path / "moods.jsonl", moods)
    settings = [f"model.name={encoders('bert')}", "data=jsonl", f"data.path={tmp_path}/moods.jsonl", "data.epochs=1"]
    fit(configured(*settings), tmp_path / "run")
    evaluate_run({"run": str(tmp_path / "run"), **SETTINGS, "explain": "integrated_gradients", "explain_rows": 2})
    for row in read_jsonl(tmp_path / "run/explanations.jsonl"):
        assert {one["name"] for one in row["explanation"]["targets"]} == {"joy", "odd"}


def nasty_items(run: Path) -> list[dict[str, Any]]:
    found = explain(Predictor.from_run(run), [NASTY], "leave_one_out")
    return [{"text": NASTY, "explanation": one, "label": "<b>", "predicted": "<i>", "row": 1} for one in found]


def test_pages_show_texts_as_text(fitted: Fitted, tmp_path: Path) -> None:
    write_explanations(tmp_path / "page.html", "leave_one_out", "<script>", nasty_items(fitted("distilbert")))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "7 * 7" in re.sub(r"<[^>]*>", "", page)
    assert "⟨U+202E⟩" in page
    assert not re.search("[\x00-\x08\x1b\u202a-\u202e]", page)
    assert "http" not in page
    assert len(page) < 20_000


def test_the_terminal_shows_words_in_colours(fitted: Fitted) -> None:
    (item,) = nasty_items(fitted("distilbert"))
    console = Console(force_terminal=True, color_system="truecolor", width=100)
    with console.capture() as captured:
        console.print(plot(item))
    said = captured.get()
    assert "comprehensiveness" in said
    assert "48;2;" in said, "words have a background"
    assert "\x1b[31m" not in said, "a text cannot send commands to the terminal"
    for target in item["explanation"]["targets"]:
        assert f"{target['probability']:.4f}" in said

"""Runs on pairs of texts, from training to export, by the real scripts."""

import csv
import json
import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Run, configured, only_run
from thaw.inference.onnx import load_onnx
from thaw.inference.predictor import Predictor
from thaw.inference.publishing import model_card
from thaw.training.fit import fit

pytestmark = pytest.mark.usefixtures("no_pages")

Encoders = Callable[[str], Path]
COLUMNS = "data.text_column=[claim,reply]"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose label says whether both texts speak of the same feeling."""
    path, chosen = tmp_path_factory.mktemp("pairs") / "pairs.csv", random.Random(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "claim", "reply", "same"])
        for i in range(160):
            one, other = chosen.choice(["happy", "sad", "angry"]), chosen.choice(["happy", "sad", "angry"])
            rows.writerow([i, f"I am {one}, {i} times.", f"so {other}", "yes" if one == other else "no"])
    return path


@pytest.mark.parametrize("freeze", [["freeze=all_but_last_n", "freeze.n=2"], ["freeze=head"]], ids=lambda own: own[0])
def test_every_loss_of_pairs_is_that_of_a_run_without_reuse(
    freeze: list[str], pairs: Path, encoders: Encoders, tmp_path: Path
) -> None:
    settings = [f"model.name={encoders('bert')}", "data=csv", f"data.path={pairs}", COLUMNS, "data.label_column=same"]
    found = []
    for reuse in ("on", "off"):
        fit(
            configured(*settings, *freeze, f"freeze.reuse={reuse}", "trainer.log_every=1", "data.epochs=3"),
            tmp_path / reuse,
        )
        with (tmp_path / reuse / "history.csv").open() as file:
            found.append([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_run_on_pairs_is_evaluated_explained_and_exported(
    pairs: Path, encoders: Encoders, tmp_path: Path, script: Run
) -> None:
    settings = [f"model.name={encoders('bert')}", "data=csv", f"data.path={pairs}", COLUMNS, "data.label_column=same"]
    said = script("train.py", *settings, "data.epochs=2").stdout
    run = only_run(tmp_path)
    assert 'text="It rains all day. [SEP] The street is wet."' in said
    command = said.partition("Predict    python ")[2].splitlines()[0]
    (row,) = [json.loads(line) for line in script(*shlex.split(command)).stdout.splitlines()]
    assert row["text"] == "It rains all day. [SEP] The street is wet."
    saved = [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    assert all(" times. [SEP] so " in row["text"] for row in saved)

    script("predict.py", f"run={run}", f"input={pairs}", "output=labelled.csv", "explain=leave_one_out")
    with (tmp_path / "labelled.csv").open() as file:
        labelled = {(row["claim"], row["reply"]): row for row in csv.DictReader(file)}
    assert len(labelled) == 160
    for row in saved:
        own = labelled[tuple(row["text"].split(" [SEP] "))]  # type: ignore[index]
        assert own["label"] == row["predicted"]
        assert len(json.loads(own["explanation"])["words"]) == 9

    lines = "I am sad. [SEP] so sad\nno pair\n"
    done = script("predict.py", f"run={run}", "input=-", ok=False, stdin=lines)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert (
        "standard input:2: 'no pair' is not a pair: ' [SEP] ', spaces included, must be between the two texts"
        in done.stderr
    )
    (tmp_path / "bad.csv").write_text("claim,reply\na,b\na [SEP] b,c\n")
    done = script("predict.py", f"run={run}", "input=bad.csv", "output=o.csv", ok=False)
    assert "bad.csv:3: the first text of a pair holds '[SEP]' itself" in done.stderr
    (tmp_path / "one.csv").write_text("both\nI am sad. [SEP] so sad\n [SEP] \n")
    done = script("predict.py", f"run={run}", "input=one.csv", "text_column=both", "output=o.csv")
    assert "1 of 2 rows hold no text, and get no label" in done.stderr
    done = script("predict.py", f"run={run}", "input=one.csv", ok=False)
    assert "Set text_column to the two of a pair, as in [premise,hypothesis]." in done.stderr
    (tmp_path / "o.csv").unlink()
    done = script("predict.py", f"run={run}", f"input={pairs}", "text_column=claim", "output=o.csv", ok=False)
    assert (done.returncode, (tmp_path / "o.csv").exists()) == (2, False)

    said = script("evaluate.py", f"run={run}", f"data.path={pairs}").stdout
    assert "The run was trained on" in said
    done = script("evaluate.py", f"run={run}", f"data.path={pairs}", "data.text_column=claim", ok=False)
    assert "data.text_column=claim: the run takes its texts from two columns" in done.stderr

    card = model_card(run, "someone/claims")
    assert 'predict({"text": "It rains all day.", "text_pair": "The street is wet."})' in card
    assert "It gives one of these labels to a pair of texts: `no`, `yes`." in card

    script("export.py", f"run={run}", "format=onnx", "quantize=int8")
    texts: list[Any] = [("I am happy.", "so sad"), "I am sad. [SEP] so sad"]
    expected = [row["score"] for row in Predictor.from_run(run)(texts)]
    assert [row["score"] for row in load_onnx(run / "onnx")(texts)] == pytest.approx(expected, abs=1e-4)


def test_a_run_on_one_text_takes_no_pairs(fitted: Callable[..., Path], pairs: Path, script: Run) -> None:
    run = fitted("bert")
    done = script("predict.py", f"run={run}", f"input={pairs}", "text_column=[claim,reply]", ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "text_column names two columns, and the run takes one text. Name one." in done.stderr


def test_explore_counts_the_words_of_both_texts(pairs: Path, encoders: Encoders, tmp_path: Path, script: Run) -> None:
    settings = [f"model.name={encoders('bert')}", "data=csv", f"data.path={pairs}", COLUMNS, "data.label_column=same"]
    script("explore.py", *settings, "features=true", "output=seen")
    seen = json.loads((tmp_path / "seen/data.json").read_text())
    assert seen["lengths"]["words"]["yes"]["median"] == 7
    assert "SEP" not in {one["word"] for one in seen["vocabulary"]["costly"]}

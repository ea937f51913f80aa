"""``export.py``: the exported model is the run's own, runs without torch, and goes to the Hub with its figures."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from conftest import ROOT, Fitted, Run, configured
from hub_server import TOKEN, USER, HubServer
from thaw.errors import UserError
from thaw.inference.export import export
from thaw.inference.onnx import load_onnx
from thaw.inference.predictor import Predictor
from thaw.inference.publishing import model_card
from tiny_models import ARCHITECTURES, CORPUS

pytestmark = pytest.mark.usefixtures("no_pages")

LONG = " ".join(CORPUS)
TEXTS = [*CORPUS[:12], "", "émoji 🎉 and שלום", LONG]


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with any number of labels."""
    path = tmp_path_factory.mktemp("moods") / "moods.jsonl"
    rows = [
        {
            "text": f"row {i} {'happy ' * (i % 2)}{'angry ' * (i % 3 == 0)}{'so ' * (i % 7)}",
            "labels": ["joy"] * (i % 2) + ["anger"] * (i % 3 == 0),
        }
        for i in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_export(run: Path, *overrides: str) -> dict[str, Any]:
    export(configured(f"run={run}", "format=onnx", "check_rows=24", *overrides, verb="export"))
    result: dict[str, Any] = json.loads((run / "onnx/export.json").read_text())
    return result


def assert_same(run: Path, texts: list[str]) -> None:
    """The same answers from torch and from the exported model."""
    ours = Predictor.from_run(run)(texts, probabilities=True)
    theirs = Predictor.from_run(run, backend="onnx")(texts, probabilities=True)
    side_by_side = load_onnx(run / "onnx", batch_size=2, threads=2)(texts, probabilities=True)
    for own, other in zip(ours * 2, theirs + side_by_side, strict=True):
        own = copy.deepcopy(own)
        for key in ("score", "scores", "probabilities"):
            assert own.pop(key, None) == pytest.approx(other.pop(key, None), abs=1e-4)
        for one, two in zip(own.get("entities", []), other.get("entities", []), strict=True):
            assert one.pop("score") == pytest.approx(two.pop("score"), abs=1e-4)
        assert own == other


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_scores_of_torch(architecture: str, fitted: Fitted) -> None:
    run = fitted(architecture)
    report = run_export(run)
    assert report["checks"]["onnx"]["score_difference"] < 1e-5
    assert report["checks"]["onnx"]["same_labels"] == 1.0
    assert report["checks"]["onnx"]["metrics"] == report["checks"]["torch"]["metrics"]
    assert_same(run, TEXTS)
    assert_same(run, [LONG])  # without a mask
    operators = [node.op_type for node in onnx.load(str(run / "onnx/model.onnx")).graph.node]
    fixed = architecture in ("deberta_v3", "mpnet")  # their attention is their own
    assert ("If" in operators) == (not fixed)
    assert (operators.count("Softmax") > 1) == fixed  # one may be that of the first token, in the last layer


def test_entities_and_windows_are_those_of_torch(fitted: Fitted) -> None:
    run = fitted("bert_cased", "data=conll2003_sample", "data.epochs=6", "loss=balanced")
    report = run_export(run, "quantize=int8")
    assert report["checks"]["onnx"]["metrics"] == report["checks"]["torch"]["metrics"]
    assert any(row["entities"] for row in Predictor.from_run(run)(TEXTS)), "nothing found would prove nothing"
    assert_same(run, TEXTS)


def test_several_labels_keep_their_thresholds(fitted: Fitted, moods: Path) -> None:
    run = fitted("distilbert", "data=jsonl", f"data.path={moods}", "data.epochs=3")
    run_export(run)
    assert load_onnx(run / "onnx").thresholds == Predictor.from_run(run).thresholds
    assert_same(run, [f"row {'happy ' * i}{'angry ' * j}" for i in range(3) for j in range(3)])


def test_integers_are_smaller_and_their_cost_is_stated(fitted: Fitted) -> None:
    run = fitted("roberta")
    report = run_export(run, "quantize=int8")
    checks, ways = report["checks"], report["int8"]["candidates"]
    assert checks["onnx_int8"]["megabytes"] < checks["onnx"]["megabytes"]
    assert ways["matrices and embeddings"]["megabytes"] < ways["matrices"]["megabytes"]
    assert checks["onnx_int8"] == ways[report["int8"]["chosen"]]
    assert checks["onnx_int8"]["same_labels"] > 0.8
    assert {"accuracy", "f1"} == set(checks["onnx_int8"]["metrics"])
    for name in ("torch", "onnx", "onnx_int8"):
        assert report["speed"][name]["rows_per_second"] > 0
        assert report["speed"][name]["p50_ms"] <= report["speed"][name]["p95_ms"]
    found = Predictor.from_run(run, backend="onnx_int8")(TEXTS)
    assert [row["text"] for row in found] == TEXTS
    names = {path.name for path in (run / "onnx").iterdir()}
    assert names == {"model.onnx", "model_int8.onnx", "tokenizer.json", "labels.json", "export.json"}


@pytest.mark.parametrize("task", ["sequence", "token"])
def test_three_lines_run_it_without_torch(task: str, fitted: Fitted, tmp_path: Path) -> None:
    """In a process in which heavy libraries cannot be imported at all."""
    run = fitted("bert") if task == "sequence" else fitted("bert_cased", "data=conll2003_sample")
    export(configured(f"run={run}", "format=onnx", f"output={tmp_path}/alone", "check_rows=8", verb="export"))
    code = f"""
import json, sys
for name in ("torch", "transformers", "pytorch_lightning", "sklearn", "datasets", "omegaconf"):
    sys.modules[name] = None
from thaw.inference.onnx import load_onnx
predict = load_onnx({str(tmp_path / "alone")!r})
print(json.dumps(predict({TEXTS[:3]!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = Predictor.from_run(run)(TEXTS[:3])
    found = json.loads(done.stdout)
    if task == "sequence":
        assert [row["label"] for row in found] == [row["label"] for row in expected]
        assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-4)
    else:
        places = [[(one["type"], one["start"], one["end"]) for one in row["entities"]] for row in (*found, *expected)]
        assert places[:3] == places[3:]


def test_an_export_that_differs_is_refused(fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that forgets the mask, say."""
    from thaw.inference import graphs

    run = fitted("distilbert", "seed=3")

    def forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(
            input_ids=input_ids, attention_mask=torch.ones_like(attention_mask) * (attention_mask >= 0)
        ).logits
        return logits

    monkeypatch.setattr(graphs.OnlyLogits, "forward", forward)
    with pytest.raises(UserError, match="scores of the exported model differ from torch's"):
        run_export(run)
    assert not list(run.glob("*onnx*")) + list(run.glob(".onnx*")), "nothing is left behind"


def test_code_that_cannot_be_followed_is_a_user_error(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    from thaw.inference import graphs

    def forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return torch.ones(int(input_ids.sum().item()))[: 3 if input_ids.max() > 7 else 2]

    monkeypatch.setattr(graphs.OnlyLogits, "forward", forward)
    with pytest.raises(UserError, match="distilbert: torch cannot export this architecture"):
        run_export(fitted("distilbert", "seed=3"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "format="),
        (["format=merged"], "has no adapters to merge"),
        (["quantize=int8"], "format="),
        (["format=merged", "quantize=int8"], "quantize=int8 is for format=onnx"),
        (["format=onnx", "output={run}"], "something else"),
        (["format=onnx", "output={run}/model"], "something else"),
        (["push_to_hub='a/b/c'"], "is not a name"),
        (["push_to_hub=mine"], "HF_HUB_OFFLINE"),
        (["push_to_hub=mine", "output=there"], "output=there is for a format"),
    ],
)
def test_what_cannot_be_exported_says_why(
    settings: list[str], said: str, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read when it was imported
    run = fitted("distilbert")
    overrides = [f"run={run}", *(one.format(run=run) for one in settings)]
    with pytest.raises(UserError, match=said):
        export(configured(*overrides, verb="export"))
    assert (run / "model/config.json").is_file()


def test_an_export_that_fails_leaves_the_one_before(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fitted("electra", "seed=7"), tmp_path / "run")
    run_export(tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    replace = os.replace

    def stopped(source: Any, target: Any) -> None:
        if Path(target).name == "onnx" and not str(source).endswith(".old"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_export(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    assert (tmp_path / "run/onnx/model.onnx").is_file()


@pytest.mark.parametrize("settings", [["format=gguf"], ["format=onnx", "check_rows=0"]])
def test_settings_that_cannot_be_are_refused(settings: list[str], script: Run) -> None:
    done = script("export.py", "run=any", *settings, ok=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {settings[-1]} is not ")


def test_a_damaged_model_is_told(fitted: Fitted, tmp_path: Path) -> None:
    shutil.copytree(fitted("electra", "seed=7"), tmp_path / "run")
    run_export(tmp_path / "run")
    model = tmp_path / "run/onnx/model.onnx"
    model.write_bytes(model.read_bytes()[:1_000])
    with pytest.raises(UserError, match=r"model\.onnx: .*Export the run again"):
        Predictor.from_run(tmp_path / "run", backend="onnx")(TEXTS)


def test_a_backend_that_was_not_exported_says_how(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fitted("electra", "seed=7")
    with pytest.raises(UserError, match=r"python export\.py run=\.\.\. format=onnx quantize=int8"):
        Predictor.from_run(run, backend="onnx_int8")
    with pytest.raises(UserError, match="backend=tensorrt is not known"):
        Predictor.from_run(run, backend="tensorrt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs the package onnxscript\. .*-e '\.\[onnx\]'"):
        run_export(run)


@pytest.mark.parametrize("freeze", ["lora", "dora", "ia3"])
def test_adapters_are_merged_into_a_plain_folder(freeze: str, fitted: Fitted, tmp_path: Path) -> None:
    from transformers import pipeline

    run = fitted("distilbert", f"freeze={freeze}")
    export(configured(f"run={run}", "format=merged", f"output={tmp_path}/plain", verb="export"))
    classify: Any = pipeline("text-classification", model=str(tmp_path / "plain"), device="cpu")
    assert not list((tmp_path / "plain").glob("adapter*"))
    for own, other in zip(Predictor.from_run(run)(TEXTS[:3]), classify(TEXTS[:3]), strict=True):
        assert own["label"] == other["label"]
        assert own["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        yield server


def login(server: HubServer, tmp_path: Path, **others: str | None) -> dict[str, str | None]:
    return {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": None,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
        **others,
    }


def test_a_run_goes_to_the_hub_and_comes_back(fitted: Fitted, hub: HubServer, script: Run, tmp_path: Path) -> None:
    """With regular and large files, a card that the Hub can read, and a model that opens from there."""
    from huggingface_hub import ModelCard

    run, environment = fitted("distilbert"), login(hub, tmp_path)
    arguments = [f"run={run}", "format=onnx", "check_rows=8", f"output={tmp_path}/onnx", "push_to_hub=moods"]
    done = script("export.py", *arguments, env=environment)
    assert f"Published  {hub.endpoint}/{USER}/moods" in done.stdout
    repo = tmp_path / "hub/models" / USER / "moods"
    assert (repo / "model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()
    assert (repo / "onnx/model.onnx").read_bytes() == (tmp_path / "onnx/model.onnx").read_bytes()
    assert len(hub.large) == 2
    card = ModelCard.load(repo / "README.md")
    metrics = json.loads((run / "metrics.json").read_text())
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None, "the encoder was a folder of this machine"
    results = {one.metric_name: one.metric_value for one in card.data.eval_results or []}
    assert results["accuracy"] == round(metrics["test/accuracy"], 4)
    assert str(tmp_path.parent) not in card.content
    # A second time there is nothing to send but what changed; from elsewhere it is found by its name.
    script("export.py", f"run={run}", f"push_to_hub={USER}/moods", env=environment)
    code = (
        "from transformers import pipeline; print(pipeline('text-classification', model='someone/moods')('so happy'))"
    )
    opened = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={key: value for key, value in {**__import__("os").environ, **environment}.items() if value is not None},
    )  # fmt: skip
    assert "label" in opened.stdout, opened.stderr


@pytest.mark.parametrize(
    ("others", "name", "said"),
    [
        ({"HF_TOKEN": None}, "moods", "there is no Hub token"),
        ({"HF_TOKEN": "hf_wrong"}, "moods", "the Hub refuses the token (401)"),
        ({}, "stranger/moods", "the Hub refuses the token (403)"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "moods", "http://127.0.0.1:9 does not answer"),
        ({"HF_HUB_OFFLINE": "1"}, "moods", "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_keeps_a_run_from_the_hub_is_one_line(
    others: dict[str, str | None], name: str, said: str, fitted: Fitted, hub: HubServer, script: Run, tmp_path: Path
) -> None:
    environment = login(hub, tmp_path, **others)
    done = script("export.py", f"run={fitted('distilbert')}", f"push_to_hub={name}", env=environment, ok=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_cards_tell_encoder_data_and_task(fitted: Fitted) -> None:
    from huggingface_hub import ModelCard
    from omegaconf import OmegaConf

    run = fitted("bert_cased", "data=conll2003_sample")
    config = OmegaConf.load(run / "config.yaml")
    config.model.name, config.data.hub = "google-bert/bert-base-cased", "lhoestq/conll2003"
    OmegaConf.save(config, run / "config.yaml")
    data = ModelCard(model_card(run, "someone/names")).data
    assert data.base_model == "google-bert/bert-base-cased"
    assert data.datasets == ["lhoestq/conll2003"]
    assert data.pipeline_tag == "token-classification"
    assert {one.metric_type for one in data.eval_results or []} == {"accuracy", "f1", "precision", "recall"}


def test_predict_runs_an_exported_model(fitted: Fitted, script: Run) -> None:
    run = fitted("distilbert")
    run_export(run)
    answers = [
        json.loads(script("predict.py", f"run={run}", f"backend={backend}", "text=I love this").stdout)
        for backend in ("torch", "onnx")
    ]
    assert answers[0]["label"] == answers[1]["label"]
    assert answers[0]["score"] == pytest.approx(answers[1]["score"], abs=1e-4)
    assert (ROOT / "export.py").read_text().count("\n") < 40

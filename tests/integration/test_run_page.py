"""The page of a run tells what metrics.json tells, shows any text as text, and needs nothing but itself."""

import json
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from omegaconf import OmegaConf

from conftest import Fitted, configured
from thaw import files
from thaw.errors import UserError
from thaw.evaluation import evaluate_run
from thaw.inference.predictor import Predictor
from thaw.labels import LabelSet
from thaw.metrics.outputs import Outputs
from thaw.reporting.comparison import compare, report
from thaw.reporting.run_page import write_page
from thaw.scoring import fit_on_validation, joined_metrics, score_rows
from thaw.training import finishing
from thaw.training.fit import fit

NASTY = {
    "<script>alert('joy')</script>": 'so happy & glad <b>today</b> "really" {{ 7 * 7 }} 🎉',
    "$x_1^2$ \u202eיגון": "שלום \u202eevil\u202c \x07 sad <img src=x onerror=alert(1)> </svg></style>",
}
TINY = ["data.epochs=3", "optimizer.lr=5e-3", "data.batch_size=16"]


class Page(HTMLParser):
    """What a browser would make of a page: elements, the text, and the figures by their names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.row, self.table = "", "", ""
        self.figures: dict[str, list[float]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table":
            self.table = given.get("id") or ""
        if tag == "tr":
            self.row = given.get("data-figure") or ""
        if tag == "data" and self.row and self.table:
            self.figures.setdefault(f"{self.table}/{self.row}", []).append(float(given["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self.row = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def nasty(encoders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on texts and labels that would break out of a careless page."""
    folder = tmp_path_factory.mktemp("nasty")
    rows = [{"text": f"{text} {i}", "label": label} for i in range(30) for label, text in NASTY.items()]
    rows[5]["label"], rows[2]["label"] = rows[2]["label"], rows[5]["label"]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit(configured("data=jsonl", f"data.path={folder}/data.jsonl", f"model.name={encoders('bert')}", *TINY), folder)
    return folder


@pytest.fixture(scope="module")
def entities(encoders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entities")
    sizes = ["data.train_size=100", "data.eval_size=40"]
    fit(configured("data=conll2003_sample", f"model.name={encoders('bert_cased')}", *TINY, *sizes), folder)
    return folder


def check_figures(run: Path, kinds: str) -> None:
    metrics, page = files.read_json(run / "metrics.json"), page_of(run / "report.html")
    names = {name.split("/", 1)[1] for name in metrics if name.startswith("test/")}
    known = (metrics["test/loss"], *metrics["intervals"]["test/loss"], metrics["validation/loss"])
    assert page.figures["figures/loss"] == [value for value in known if value is not None]
    for name in names:
        if name.count("/") or (name == "f1_macro" and "precision" not in names):  # f1 then is the same
            continue
        own = metrics[f"test/{name}"], *metrics["intervals"].get(f"test/{name}", ())
        beside = (figures.get(name) for figures in metrics["baselines"]["test"].values())
        expected = [*own, metrics[f"validation/{name}"], *beside]
        assert page.figures[f"figures/{name}"] == [value for value in expected if value is not None], name
    labels = [name.removeprefix("f1/") for name in names if name.startswith("f1/")]
    assert labels
    for label in labels:
        shown = label.replace("\u202e", "⟨U+202E⟩")
        expected = [metrics[f"test/{kind}/{label}"] for kind in ("f1", "precision", "recall")]
        assert page.figures[f"by-label/{shown}"] == expected
    assert kinds in page.text


def test_figures_on_the_page_are_those_of_metrics(nasty: Path, entities: Path) -> None:
    check_figures(nasty, "TF-IDF, logistic regression")
    check_figures(entities, "most frequent tag")


def test_texts_are_shown_as_text(nasty: Path) -> None:
    html, page = (nasty / "report.html").read_text(encoding="utf-8"), page_of(nasty / "report.html")
    assert {"script", "img", "b", "iframe", "link"} & {tag for tag, _ in page.tags} <= {"b"}
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert "<script>alert('joy')</script>" in page.text
    assert '<b>today</b> "really" {{ 7 * 7 }} 🎉' in page.text
    assert "<img src=x onerror=alert(1)> </svg></style>" in page.text
    assert "$x_1^2$ ⟨U+202E⟩" in page.text, "what turns the direction of a text is written out"
    assert not re.search("[\x00-\x08\u202a-\u202e]", html)


@pytest.mark.parametrize("kind", ["nasty", "entities"])
def test_the_page_needs_nothing_but_itself(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    html, page = (run / "report.html").read_text(encoding="utf-8"), page_of(run / "report.html")
    for _, given in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (given.get(name) or "#").startswith(("#", "data:"))
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(pictures) >= 8
    for picture in pictures:
        namespaces = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
        ElementTree.fromstring(f"<root {namespaces}>{picture}</root>")
        assert picture.count("<title>") >= 1
        assert "#1a1c1f" not in picture, "colours follow the page"


def test_entities_are_told_apart(entities: Path) -> None:
    page = page_of(entities / "report.html")
    for words in ("missed", "spurious", "wrong boundary", "seen in training", "not seen in training"):
        assert words in page.text
    assert files.read_json(entities / "surfaces.json")


def test_the_page_tells_of_a_temperature_that_does_harm(nasty: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(nasty, tmp_path / "run"))
    metrics = files.read_json(run / "metrics.json")
    for name, value in (("ece", 0.02), ("ece_calibrated", 0.28)):
        metrics[f"test/{name}"] = value
        metrics["intervals"][f"test/{name}"] = [value - 0.01, value + 0.01]
    write_page(run, "test", metrics, files.read_jsonl(run / "predictions/test.jsonl"))
    page = (run / "report.html").read_text()
    assert "so here it does harm" in page
    assert "raises the calibration error of test from 0.020 to 0.280" in page


def test_the_page_tells_of_texts_that_are_too_long(nasty: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(nasty, tmp_path / "run"))
    metrics, data = files.read_json(run / "metrics.json"), files.read_json(run / "data.json")
    data["splits"]["train"]["truncated"] = 0.4
    files.write_json(run / "data.json", data)
    metrics["test/f1"], metrics["baselines"]["test"]["TF-IDF, logistic regression"]["f1"] = 0.5, 0.75
    write_page(run, "test", metrics, files.read_jsonl(run / "predictions/test.jsonl"))
    assert "40% of the training rows are truncated" in (run / "report.html").read_text()


def test_evaluate_writes_the_page_again(nasty: Path, tmp_path: Path) -> None:
    before = (nasty / "report.html").read_text(encoding="utf-8")
    (nasty / "report.html").unlink()
    settings = {"run": str(nasty), "split": "test", "output": str(tmp_path / "out.jsonl"), "data": {"path": None}}
    evaluate_run(settings)
    assert (nasty / "report.html").read_text(encoding="utf-8") == before
    evaluate_run({**settings, "split": "validation"})
    page = page_of(nasty / "report-validation.html")
    assert page.figures["figures/loss"][0] == pytest.approx(files.read_json(nasty / "metrics.json")["validation/loss"])
    assert ["picked the checkpoint" in text for text in (before, page.text)] == [False, True]
    rows = [{"text": text, "label": label} for label, text in NASTY.items()]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate_run({**settings, "data": {"path": str(tmp_path / "new.jsonl")}})
    assert "new" in page_of(nasty / "report-new.html").text


@pytest.mark.parametrize("data", ["emotion_sample", "conll2003_sample"])
def test_a_run_may_go_without_baselines(data: str, fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "predict_untrained", lambda *_: pytest.fail("they are predicted"))
    run = fitted("distilbert", f"data={data}", "baselines=false")
    assert files.read_json(run / "metrics.json")["baselines"] == {"test": {}}
    page = (run / "report.html").read_text()
    assert "before training" not in page
    assert "Baselines are scored" not in page
    settings = {"run": str(run), "split": "test", "output": None, "data": {"path": None}}
    assert evaluate_run({**settings, "baselines": False})[2]["baselines"] == {"test": {}}
    assert evaluate_run(settings)[2]["baselines"]["test"]


@pytest.mark.parametrize("kind", ["nasty", "entities"])
def test_baselines_of_other_rows_are_learnt_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run: Path = request.getfixturevalue(kind)
    metrics = files.read_json(run / "metrics.json")
    rows = files.read_jsonl(run / "predictions" / "test.jsonl")
    again = [{"text": row.get("text") or row["words"], "label": row["label"]} for row in rows]
    (tmp_path / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in again))
    settings = {"run": str(run), "split": "test", "output": str(tmp_path / "out.jsonl")}
    new = {**settings, "data": {"path": str(tmp_path / "again.jsonl"), "format": "jsonl"}}
    *_, own = evaluate_run(new)
    assert own["baselines"]["again"] == metrics["baselines"]["test"], "the same rows, the same figures"
    name = "most frequent tag" if kind == "entities" else "TF-IDF, logistic regression"
    assert name in page_of(run / "report-again.html").text
    *_, own = evaluate_run({**settings, "split": "validation", "data": {"path": None}})
    assert list(own["baselines"]["validation"]) == list(metrics["baselines"]["test"])
    *_, own = evaluate_run({**new, "baselines": False})
    assert not own["baselines"]["again"]
    # Without the data that it was trained on a run is evaluated as well.
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = OmegaConf.load(moved / "config.yaml")
    config.data.path = str(tmp_path / "gone")
    OmegaConf.save(config, moved / "config.yaml")
    *_, own = evaluate_run({**new, "run": str(moved)})
    assert not own["baselines"]["again"]
    assert own["again/loss"] >= 0
    assert re.search("Not compared with the training data: .*gone", caplog.text)


def test_the_temperature_is_used_when_asked_for(nasty: Path) -> None:
    temperature = files.read_json(nasty / "labels.json")["temperature"]
    texts = list(NASTY.values())
    plain = Predictor.from_run(nasty)(texts, probabilities=True)
    mended = Predictor.from_run(nasty, calibrated=True)(texts, probabilities=True)
    for one, other in zip(plain, mended, strict=True):
        assert one["label"] == other["label"]
        before, after = (np.log(list(row["probabilities"].values())) for row in (one, other))
        assert np.diff(after) == pytest.approx(np.diff(before) / temperature, rel=1e-4)


def test_a_run_without_a_temperature_says_so(nasty: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(nasty, copy)
    saved = files.read_json(copy / "labels.json")
    del saved["temperature"]
    files.write_json(copy / "labels.json", saved)
    with pytest.raises(UserError, match="has no temperature"):
        Predictor.from_run(copy, calibrated=True)


def test_two_runs_are_compared(nasty: Path, encoders: Callable[[str], Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = configured("data=jsonl", f"data.path={nasty}/data.jsonl", f"model.name={encoders('distilbert')}", *TINY)
    fit(config, other)
    out = tmp_path / "out.html"
    report(configured(f"runs='{nasty},{other}'", f"output={out}", verb="report"))
    page, result = page_of(out), compare(nasty, other, "test")
    ours, theirs = (files.read_json(run / "metrics.json") for run in (nasty, other))
    for name in ("accuracy", "f1", "mcc"):
        first, second, difference, low, high = page.figures[f"figures/{name}"]
        assert (first, second) == pytest.approx((ours[f"test/{name}"], theirs[f"test/{name}"]))
        assert difference == pytest.approx(second - first)
        assert low <= difference <= high
    rows = [files.read_jsonl(run / "predictions/test.jsonl") for run in (nasty, other)]
    right = [[row["label"] == row["predicted"] for row in own] for own in rows]
    assert result["flipped"] == sum(a != b for a, b in zip(*right, strict=True))
    assert "McNemar" in page.text
    assert "script" not in {tag for tag, _ in page.tags}
    one = shutil.copytree(nasty, tmp_path / "one")
    for run in (one, other):  # as evaluate.py data.path=checked.csv leaves them
        rows = files.read_jsonl(run / "predictions/test.jsonl")
        files.write_jsonl(run / "predictions/checked.jsonl", rows[:5])
    report(configured(f"runs='{one},{other}'", "split=checked", f"output={out}", verb="report"))
    assert "5 rows" in page_of(out).text


def test_compare_needs_two_runs_of_one_task(nasty: Path, entities: Path) -> None:
    with pytest.raises(UserError, match="one is a sequence task, the other a token task"):
        compare(nasty, entities, "test")
    with pytest.raises(UserError, match=r"holds no predictions for val\. It holds: .*test.*, validation"):
        compare(nasty, entities, "val")
    with pytest.raises(UserError, match=r"Give two run folders, runs=A,B, the folder of a multirun, or several"):
        report(configured(f"runs={nasty}", verb="report"))
    for listed in (f"{nasty},{entities}", f"[{nasty}, {entities}]"):
        with pytest.raises(UserError, match="one is a sequence task"):
            report(configured(f"runs='{listed}'", verb="report"))


class Known:
    """A predictor whose network has spoken already."""

    def __init__(self, labels: LabelSet) -> None:
        self.labels, self.thresholds, self.temperature = labels, [0.5] * len(labels), None

    def chosen(self, own: np.ndarray) -> str:
        return self.labels.names[int(own.argmax())]


@pytest.mark.parametrize(("rows", "classes", "words"), [(25_000, 2, 230), (1_500, 150, 12)], ids=["imdb", "clinc"])
def test_large_pages_are_small_and_soon_made(rows: int, classes: int, words: int, nasty: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "environment.json", "data.json", "parameters.json", "history.csv"):
        (tmp_path / name).write_bytes((nasty / name).read_bytes())
    generator = np.random.default_rng(0)
    names = tuple(f"a class with a longer name {i}" for i in range(classes))
    labels = LabelSet("sequence", names, (rows // classes,) * classes, "", rows)
    gold = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    logits = (generator.normal(size=(rows, classes)) + 2 * np.eye(classes)[gold]).astype(np.float32)
    outputs, texts = Outputs(np.arange(rows), logits, gold), [f"{i} " + "word " * words for i in range(rows)]
    predictor: Any = Known(labels)
    own = {"max_length": 64, "clean_html": False}
    files.write_json(tmp_path / "labels.json", {**labels.to_dict(), **own, **fit_on_validation(predictor, outputs)})
    loss = {"label_smoothing": 0, "focal_gamma": 0, "class_weights": None}
    config = {"strict_iob2": False, "metrics": {}, "loss": loss}
    clock = time.perf_counter()
    result = score_rows(predictor, outputs, texts, [f"a.txt:{i}" for i in range(rows)], config)
    old = files.read_json(nasty / "metrics.json")
    kept = {key: old[key] for key in ("baselines", "best", "seconds", "rows_per_second", "trainable", "parameters")}
    files.write_jsonl(tmp_path / "predictions/test.jsonl", result.predictions)
    write_page(tmp_path, "test", {**kept, **joined_metrics({"test": result})}, result.predictions)
    assert time.perf_counter() - clock < 20
    (path,) = tmp_path.glob("report*.html")
    assert path.stat().st_size < 3e6

"""The literal commands of the README, against a server on the loopback address that speaks the Hub's protocol."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest

from conftest import ROOT, Run, only_run
from hub_server import HubServer
from thaw.data.conll import read_conll
from thaw.data.rows import Options, Row
from tiny_models import build

SAMPLES = ROOT / "samples"
EMOTIONS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
MODELS = {
    "distilbert": "distilbert/distilbert-base-uncased",
    "bert": "google-bert/bert-base-uncased",
    "bert_cased": "google-bert/bert-base-cased",
}
RUNS = [("distilbert", "emotion"), ("bert", "imdb"), ("bert_cased", "conll2003"), ("bert_cased", "rte")]


@dataclass
class Hub:
    """The server's address while it runs, and the cache that a first run fills."""

    environment: dict[str, str | None]
    stop: Callable[[], None]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    for architecture, name in MODELS.items():
        build(architecture, root / "models" / name, positions=256)
    write_emotion(root / "datasets/dair-ai/emotion")
    write_imdb(root / "datasets/stanfordnlp/imdb")
    write_conll(root / "datasets/lhoestq/conll2003")
    write_rte(root / "datasets/nyu-mll/glue")
    server = HubServer(root)
    server.__enter__()
    environment: dict[str, str | None] = {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_OFFLINE": None,
        "NO_PROXY": "127.0.0.1",
    }
    running = [server]

    def stop() -> None:
        while running:
            running.pop().__exit__(None, None, None)

    yield Hub(environment, stop)
    stop()


def write(folder: Path, config: str, splits: dict[str, list[dict[str, Any]]], features: Any) -> None:
    """A data set repository as the Hub keeps it: Parquet files, and a README that names them."""
    lines = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
    for split, rows in splits.items():
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))
        lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def write_emotion(folder: Path) -> None:
    splits = {}
    for split, file, count in (("train", "train", 64), ("validation", "val", 20), ("test", "test", 20)):
        rows = (SAMPLES / f"emotion/{file}.txt").read_text(encoding="utf-8").splitlines()[:count]
        splits[split] = [dict(zip(("text", "label"), row.rsplit(";", 1), strict=True)) for row in rows]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=EMOTIONS)})
    write(folder, "split", splits, features)


def write_imdb(folder: Path) -> None:
    splits = {}
    for split, count in (("train", 60), ("test", 20)):
        with gzip.open(SAMPLES / f"imdb/{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        splits[split] = [row for label in (0, 1) for row in rows if row["label"] == label][: len(rows)][
            :: len(rows) // count
        ]
    splits["unsupervised"] = [{"text": "No label here.", "label": -1}]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    write(folder, "plain_text", splits, features)


def write_conll(folder: Path) -> None:
    splits = {}
    for split, file, count in (("train", "train", 60), ("validation", "valid", 20), ("test", "test", 20)):
        rows = [row for row in read_conll(SAMPLES / f"conll2003/{file}.txt", Options()) if isinstance(row, Row)][:count]
        splits[split] = [{"tokens": row.text, "ner_tags": row.label} for row in rows]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=TAGS)),
        }
    )
    write(folder, "conll2003", splits, features)


def write_rte(folder: Path) -> None:
    """Pairs, with a test split whose labels are kept back."""
    rows = [
        {
            "sentence1": f"It rains {i} days.",
            "sentence2": f"It is {'dry' if i % 2 else 'wet'}.",
            "label": i % 2,
            "idx": i,
        }
        for i in range(40)
    ]
    splits = {"train": rows[:30], "validation": rows[30:], "test": [{**row, "label": -1} for row in rows[:5]]}
    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    texts = {name: datasets.Value("string") for name in ("sentence1", "sentence2")}
    write(folder, "rte", splits, datasets.Features({**texts, "label": names, "idx": datasets.Value("int32")}))


@pytest.mark.parametrize(("model", "data"), RUNS)
def test_a_run_from_the_hub_with_an_empty_cache(model: str, data: str, hub: Hub, script: Run, tmp_path: Path) -> None:
    script("train.py", f"model={model}", f"data={data}", "data.epochs=3", env=hub.environment)
    run = only_run(tmp_path)
    assert run.parent == tmp_path / "outputs" / data / model
    summary = json.loads((run / "data.json").read_text())
    assert list(summary["splits"]) == ["train", "validation", "test"][: 2 if data == "rte" else 3]
    pairs = ["entailment", "not_entailment"]
    assert summary["labels"] == {"emotion": EMOTIONS, "imdb": ["neg", "pos"], "conll2003": TAGS, "rte": pairs}[data]


@pytest.mark.parametrize(("model", "data"), RUNS)
def test_a_run_when_the_hub_is_gone(model: str, data: str, hub: Hub, script: Run, tmp_path: Path) -> None:
    """Model and data come from the cache that the runs above have filled."""
    hub.stop()
    done = script("train.py", f"model={model}", f"data={data}", "data.epochs=1", env=hub.environment)
    assert "cannot be reached: using the local cache only" in done.stdout
    assert (only_run(tmp_path) / "metrics.json").is_file()


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refusing"])
def test_no_hub_and_no_cache_names_the_ways_out(silent: bool, script: Run, tmp_path: Path) -> None:
    """An address that takes the connection and never answers, and one where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        hub = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": None,
            "NO_PROXY": "127.0.0.1",
        }
        settings = ["model=distilbert", "data=emotion_sample"] if silent else ["data=emotion"]
        done = script("train.py", *settings, env=hub, ok=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for way in ("the Hub cannot be reached", "local path", "HF_ENDPOINT", "data=emotion_sample"):
        assert way in line
    assert not list(tmp_path.glob("outputs/*/*/*"))

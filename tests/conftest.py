"""What the tests share: tiny encoders, small data, and a way to run the real scripts."""

import gc
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

# Tiny models gain nothing from a second thread, and lose much where threads wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from thaw.cli import register_resolvers
from tiny_models import build
from warm import Warm

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]
Fitted = Callable[..., Path]


def pytest_collection() -> None:
    gc.disable()  # while libraries are imported: see thaw.memory.importing


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the folder of a tiny, randomly initialised encoder of an architecture."""
    from thaw.models import onednn

    onednn.SMALL = 0  # tiny networks are to be computed as real ones are
    folder = tmp_path_factory.mktemp("encoders")

    def encoder(architecture: str) -> Path:
        path = folder / architecture
        return path if path.is_dir() else build(architecture, path)

    return encoder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or asks the Hub."""
    monkeypatch.setenv("THAW_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    process = Warm(tmp_path_factory.mktemp("warm"))
    yield process
    process.end()


@pytest.fixture
def script(tmp_path: Path, warm: Warm) -> Run:
    """Run a root script in an empty working folder: ``script("train.py", "data=...", ok=True)``.

    Args of the function:
        ok: fail the test with the output unless the exit code is 0.
        env: further environment variables; None as value removes one.
        stdin: text for standard input.
    """

    def run(
        name: str, *arguments: str, ok: bool = True, env: dict[str, str | None] | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        variables = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
        done = warm.run([str(ROOT / name), *arguments], tmp_path, variables, stdin or "")
        if ok:
            assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def emotion_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 48, 12 and 12 rows of ``text;label`` that a tiny encoder can learn by heart."""
    folder = tmp_path_factory.mktemp("emotion")
    words = {"joy": "happy glad bright", "anger": "angry mad furious", "fear": "afraid scared nervous"}
    for split, count in (("train", 48), ("val", 12), ("test", 12)):
        rows = []
        for i in range(count):
            label = sorted(words)[i % 3]
            word = words[label].split()[i // 3 % 3]
            rows.append(f"{split} sentence {i} and i am {word} {'really ' * (i % 5)}today;{label}\n")
        (folder / f"{split}.txt").write_text("".join(rows), encoding="utf-8")
    return folder


def configured(*overrides: str, verb: str = "train") -> DictConfig:
    """The config of a root script, composed in this process."""
    register_resolvers(ROOT / "conf")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(verb, overrides=list(overrides))


def files_of(run: Path) -> dict[str, object]:
    """What two runs must have in common to count as the same: weights, figures, history, predictions."""
    from safetensors.torch import load_file

    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["seconds"], metrics["rows_per_second"]
    weights = {name: value.numpy().tobytes() for name, value in load_file(run / "model/model.safetensors").items()}
    texts = [(run / name).read_text() for name in ("history.csv", "predictions/test.jsonl")]
    return {"weights": weights, "metrics": metrics, "texts": texts}


@pytest.fixture(scope="module")
def no_pages() -> Iterator[None]:
    """Runs in this process get no page, which takes as long as all else that a tiny run does."""
    from thaw.reporting import pages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "draw", lambda run: None)
        yield


def only_run(folder: Path) -> Path:
    """The one run folder below a working folder."""
    (config,) = folder.glob("outputs/*/*/*/config.yaml")
    return config.parent


@pytest.fixture(scope="module")
def fitted(encoders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A function that trains a tiny encoder and gives the run folder; the same settings are trained once."""
    from thaw.training.fit import fit

    done: dict[tuple[str, ...], Path] = {}

    def train(architecture: str, *overrides: str) -> Path:
        key = (architecture, *overrides)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("run") / "run"
            settings = ["data.train_size=64", "data.eval_size=24", "data.epochs=2", "optimizer.lr=1e-2"]
            fit(configured(f"model.name={encoders(architecture)}", *settings, *overrides), done[key])
        return done[key]

    return train

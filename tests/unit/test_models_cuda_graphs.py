"""Training steps by CUDA graphs give what they give one by one. Without a GPU, all but the graphs themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import configured
from thaw.models import cuda_graphs, module
from thaw.models.cuda_graphs import StepGraphs, Work
from thaw.models.module import EncoderModule
from thaw.training.fit import fit
from tiny_models import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("no_pages")

Encoders = Callable[[str], Path]
CASES = {
    "each epoch": [],
    "every 4 steps": ["trainer.eval_every=4"],
    "accumulation": ["trainer.accumulate_grad_batches=2"],
    "words": ["data=conll2003_sample"],
    "lora": ["freeze=lora", "freeze.learning_rate=1e-2"],
    "gradual": ["freeze=gradual", "freeze.reuse=off", "data.padding=max_length", "data.max_length=32"],
    "lp_ft": ["freeze=lp_ft", "data.padding=max_length", "data.max_length=32"],
    "weights": ["loss=balanced"],
}
REPLAYED = ("bert", "distilbert")  # seen on a GPU; others may be launched one by one, which gives the same losses
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def settings(encoder: Path, *extra: str) -> list[str]:
    return [
        f"model.name={encoder}", "data.train_size=72", "data.eval_size=24", "data.epochs=3", "data.batch_size=8",
        "optimizer.lr=1e-2", "trainer.log_every=1", *extra,
    ]  # fmt: skip


def histories(folder: Path, *names: str) -> list[np.ndarray]:
    return [np.genfromtxt(folder / name / "history.csv", delimiter=",")[1:] for name in names]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[StepGraphs | None]:
    """What each stage of the runs of a test was given."""
    given, step_graphs = [], EncoderModule.step_graphs

    def kept(self: EncoderModule) -> StepGraphs | None:
        given.append(step_graphs(self))
        return given[-1]

    monkeypatch.setattr(EncoderModule, "step_graphs", kept)
    return given


def replayed(made: list[StepGraphs | None]) -> bool:
    return any(graphs.recorded for graphs in made if graphs)


def play_gpu(monkeypatch: pytest.MonkeyPatch, record: Callable[[Work], Work]) -> None:
    monkeypatch.setattr(module, "on_one_gpu", lambda strategy: True)
    monkeypatch.setattr(cuda_graphs, "recorder", lambda: record)


@pytest.mark.parametrize("case", CASES)
def test_a_run_ends_the_same(
    case: str, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[StepGraphs | None]
) -> None:
    """With work in place of its recording, which so is done on the tensors that a graph would hold."""
    own = settings(encoders("distilbert"), "trainer.accelerator=cpu", "model.dropout=0", *CASES[case])
    fit(configured(*own), tmp_path / "plain")
    assert not any(made), "there are none without a GPU"
    play_gpu(monkeypatch, lambda work: work)
    fit(configured(*own), tmp_path / "graphs")
    assert replayed(made)
    np.testing.assert_allclose(*histories(tmp_path, "plain", "graphs"), rtol=1e-5, atol=1e-7)


def test_a_callback_may_change_how_many_batches_a_step_takes(
    encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings(
        encoders("distilbert"), "trainer.accelerator=cpu", "model.dropout=0",
        "+callbacks.more._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler",
        "+callbacks.more.scheduling={0: 3, 2: 1}",
    )  # fmt: skip
    fit(configured(*own), tmp_path / "plain")
    play_gpu(monkeypatch, lambda work: work)
    fit(configured(*own), tmp_path / "graphs")
    np.testing.assert_allclose(*histories(tmp_path, "plain", "graphs"), rtol=1e-5, atol=1e-7)


def test_what_cannot_be_recorded_is_launched_one_by_one(
    encoders: Encoders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: list[StepGraphs | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = settings(encoders("distilbert"), "trainer.accelerator=cpu", "model.dropout=0")
    fit(configured(*own), tmp_path / "plain")

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nwith more lines")

    play_gpu(monkeypatch, refuse)
    with caplog.at_level("INFO"):
        fit(configured(*own), tmp_path / "graphs")
    assert made[-1]
    assert not made[-1].possible
    assert "launched one by one: operation not permitted when stream is capturing." in caplog.text
    np.testing.assert_allclose(*histories(tmp_path, "plain", "graphs"), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("extra", [["trainer.cuda_graphs=false"], ["freeze=head"]])
def test_there_are_no_graphs(
    extra: list[str],
    encoders: Encoders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: list[StepGraphs | None],
) -> None:
    """Unasked, and for stored states."""
    play_gpu(monkeypatch, lambda work: work)
    fit(configured(*settings(encoders("distilbert"), "trainer.accelerator=cpu", *extra)), tmp_path)
    assert made
    assert not any(made)


@on_gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graphs_give_the_losses_of_single_launches(
    architecture: str, encoders: Encoders, tmp_path: Path, made: list[StepGraphs | None]
) -> None:
    """With dropout: a graph draws the same random numbers."""
    for name in ("false", "true"):
        own = settings(encoders(architecture), "trainer.deterministic=false", f"trainer.cuda_graphs={name}")
        fit(configured(*own), tmp_path / name)
        if name == "false" or architecture in REPLAYED:
            assert replayed(made) == (name == "true")
    np.testing.assert_allclose(*histories(tmp_path, "false", "true"), rtol=1e-3, atol=1e-5)


@on_gpu
def test_a_gpu_goes_on_after_work_that_no_graph_holds(
    encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[StepGraphs | None]
) -> None:
    own = settings(encoders("distilbert"), "trainer.deterministic=false")
    fit(configured(*own, "trainer.cuda_graphs=false"), tmp_path / "plain")
    losses = EncoderModule.losses

    def look(self: EncoderModule, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        loss, weighted = losses(self, batch)
        assert float(loss) > 0
        return loss, weighted

    monkeypatch.setattr(EncoderModule, "losses", look)
    fit(configured(*own), tmp_path / "looking")
    assert made[-1]
    assert not made[-1].possible
    np.testing.assert_allclose(*histories(tmp_path, "plain", "looking"), rtol=1e-3, atol=1e-5)

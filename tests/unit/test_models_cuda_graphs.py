"""Training steps by CUDA graphs give what they give one by one. Without a GPU, all but the graphs themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import configured
from thaw.models.cuda_graphs import StepGraphs
from thaw.models.module import EncoderModule
from thaw.training.fit import fit
from tiny_models import ARCHITECTURES

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
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def settings(encoder: Path, *extra: str) -> list[str]:
    return [
        f"model.name={encoder}", "data.train_size=72", "data.eval_size=24", "data.epochs=3", "data.batch_size=8",
        "optimizer.lr=1e-2", "trainer.log_every=1", *extra,
    ]  # fmt: skip


def histories(folder: Path, *names: str) -> list[np.ndarray]:
    return [np.genfromtxt(folder / name / "history.csv", delimiter=",")[1:] for name in names]


def use(monkeypatch: pytest.MonkeyPatch, record: Callable[..., Callable[[], None]]) -> list[StepGraphs]:
    made = []

    def step_graphs(self: EncoderModule) -> StepGraphs | None:
        if self.prefix is not None:
            return None
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        made.append(StepGraphs(self.losses, trained, self.trainer.accumulate_grad_batches, record))
        return made[-1]

    monkeypatch.setattr(EncoderModule, "step_graphs", step_graphs)
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_run_ends_the_same(case: str, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With work in place of its recording, which so is done on the tensors that a graph would hold."""
    own = settings(encoders("distilbert"), "trainer.accelerator=cpu", "model.dropout=0", *CASES[case])
    fit(configured(*own), tmp_path / "plain")
    made = use(monkeypatch, lambda work: work)
    fit(configured(*own), tmp_path / "graphs")
    assert any(step is not None for graphs in made for step in graphs.steps.values())
    np.testing.assert_allclose(*histories(tmp_path, "plain", "graphs"), rtol=1e-5, atol=1e-7)


def test_what_cannot_be_recorded_is_launched_one_by_one(
    encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = settings(encoders("distilbert"), "trainer.accelerator=cpu", "model.dropout=0")
    fit(configured(*own), tmp_path / "plain")

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nwith more lines")

    made = use(monkeypatch, refuse)
    with caplog.at_level("INFO"):
        fit(configured(*own), tmp_path / "graphs")
    assert not made[0].possible
    assert "launched one by one: operation not permitted when stream is capturing." in caplog.text
    np.testing.assert_allclose(*histories(tmp_path, "plain", "graphs"), rtol=1e-5, atol=1e-7)


@on_gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graphs_give_the_losses_of_single_launches(architecture: str, encoders: Encoders, tmp_path: Path) -> None:
    """With dropout: a graph draws the same random numbers."""
    for name in ("false", "true"):
        own = settings(encoders(architecture), "trainer.deterministic=false", f"trainer.cuda_graphs={name}")
        fit(configured(*own), tmp_path / name)
    np.testing.assert_allclose(*histories(tmp_path, "false", "true"), rtol=1e-3, atol=1e-5)


@on_gpu
def test_a_gpu_goes_on_after_work_that_no_graph_holds(
    encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    np.testing.assert_allclose(*histories(tmp_path, "plain", "looking"), rtol=1e-3, atol=1e-5)

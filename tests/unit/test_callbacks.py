"""What a run says of its course."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thaw.runs import history
from thaw.training.callbacks import History, ValidationLines
from thaw.training.trainer import enough_epochs


@pytest.mark.parametrize(
    ("steps", "lines"),
    [
        (-1, []),
        (20, []),
        (27, []),
        (28, ["trainer.max_steps=28 is not reached: the run ends after 3 epochs, at step 27. Enough: data.epochs=4"]),
        (90, ["trainer.max_steps=90 is not reached: the run ends after 3 epochs, at step 27. Enough: data.epochs=10"]),
    ],
)
def test_a_run_whose_epochs_end_before_its_steps_says_so_when_it_begins(
    steps: int, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Transformers' Trainer would go on for all of them."""
    estimated = 27 if steps < 0 else min(steps, 27)  # as Lightning counts: nine in each of three epochs
    trainer: Any = SimpleNamespace(max_steps=steps, max_epochs=3, estimated_stepping_batches=estimated)
    with caplog.at_level(logging.INFO):
        ValidationLines("val/f1", bar=False).on_train_start(trainer, trainer)
    assert caplog.messages == lines


@pytest.mark.parametrize(
    ("batches", "trainer", "epochs"),
    [
        (500, {}, 3),
        (19, {}, 16),
        (19, {"accumulate_grad_batches": 2}, 30),
        (6, {}, 50),
        (1, {}, 50),
        (19, {"max_steps": 40}, 3),
        (19, {"max_steps": 900}, 48),
        (500, {"max_steps": 5}, 1),
        (200, {"devices": 2}, 3),
        (200, {"devices": [0, 1, 2, 3], "num_nodes": 2}, 12),
        (50, {"devices": "auto"}, 12),
        (50, {"devices": -1, "accelerator": "cpu"}, 6),
    ],
)
def test_epochs_are_as_many_as_small_data_needs(
    batches: int, trainer: dict[str, Any], epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    usual = {"accelerator": "auto", "max_steps": None, "accumulate_grad_batches": 1, "devices": 1, "num_nodes": 1}
    assert enough_epochs({**usual, **trainer}, batches) == epochs


def test_a_history_holds_labels_of_any_characters(tmp_path: Path) -> None:
    own = History(tmp_path / "history.csv", every=1)
    own.rows = [{"step": 1, "val/f1/a\u2028b": 0.5, "val/f1/c\nd": 0.25}]
    trainer: Any = SimpleNamespace(is_global_zero=True)
    own.write(trainer)
    assert history(tmp_path) == [{"step": "1", "val/f1/a\u2028b": "0.5", "val/f1/c\nd": "0.25"}]


@pytest.mark.parametrize(("every", "said"), [(0.0, 3), (3600.0, 1)])
def test_validations_of_a_multirun_are_told_at_intervals(
    every: float, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ValidationLines("val/f1", bar=False, every=every)
    trainer: Any = SimpleNamespace(callback_metrics={"val/f1": 0.5}, current_epoch=0, global_step=1)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            lines.on_validation_end(trainer, trainer)
    assert len(caplog.messages) == said

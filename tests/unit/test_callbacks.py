"""What a run says of its course."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from thaw.training.callbacks import ValidationLines


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

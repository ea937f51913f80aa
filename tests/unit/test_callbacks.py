"""What a run says of its course."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thaw.runs import history
from thaw.training.callbacks import History, ValidationLines


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


def test_a_history_holds_labels_of_any_characters(tmp_path: Path) -> None:
    own = History(tmp_path / "history.csv", every=1)
    own.rows = [{"step": 1, "val/f1/a\u2028b": 0.5, "val/f1/c\nd": 0.25}]
    trainer: Any = SimpleNamespace(is_global_zero=True)
    own.write(trainer)
    assert history(tmp_path) == [{"step": "1", "val/f1/a\u2028b": "0.5", "val/f1/c\nd": "0.25"}]

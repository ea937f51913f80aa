"""When the state of a run is saved, what it holds, and what it must not be loaded into."""

import os
import random
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import configured
from thaw.errors import UserError
from thaw.files import write_json
from thaw.training import resuming
from thaw.training.restoring import check_same_data, check_same_weights
from thaw.training.resuming import LATE, Resumable, keep_as, random_states, set_random_states
from thaw.training.trainer import WholeFiles, make_trainer
from thaw.training.validating import ValidateEvery, stepped, validation_due


def trainer_at(step: int = 0, batches: int = 0, **settings: Any) -> Any:
    """A trainer after so many steps of 20, and batches of nine in an epoch."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=batches))
    fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    defaults = {"accumulate_grad_batches": 1, "num_training_batches": 9.0, "check_val_every_n_epoch": 1}
    module = SimpleNamespace(steps=20)
    return SimpleNamespace(global_step=step, fit_loop=fit_loop, lightning_module=module, **{**defaults, **settings})


@pytest.mark.parametrize(
    ("every", "step", "waited", "due"),
    [
        (4, 8, 1e6, False),
        (4, 9, 0, True),
        (4, 12, 0, True),
        ("30s", 9, 29, False),
        ("30s", 9, 30, True),
        ("1min", 9, 59, False),
        (None, 9, 1e6, False),
        (None, 20, LATE, False),
        (None, 20, LATE + 1, True),
        (100, 20, LATE + 1, True),
    ],
)
def test_a_state_is_saved_at_intervals_and_at_a_late_end(
    every: int | str | None, step: int, waited: float, due: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Resumable(tmp_path, every)
    own.saved_step, own.saved_at = 5, 1000.0
    monkeypatch.setattr(resuming, "time", SimpleNamespace(monotonic=lambda: 1000.0 + waited))
    assert own._due(trainer_at(step)) is due


def test_the_time_before_a_stop_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Resumable(tmp_path, None)
    own.earlier, own.began = 60.0, 1000.0
    monkeypatch.setattr(resuming, "time", SimpleNamespace(monotonic=lambda: 1005.0))
    assert own.seconds_spent() == 65.0


@pytest.mark.parametrize(("batches", "expected"), [(1, False), (2, True), (8, True), (9, True)])
def test_the_last_batch_of_an_epoch_ends_with_a_step(batches: int, expected: bool) -> None:
    """Of nine batches, two to a step."""
    assert stepped(trainer_at(batches=batches, accumulate_grad_batches=2)) is expected


@pytest.mark.parametrize(
    ("step", "batches", "every", "accumulate", "expected"),
    [
        (5, 5, None, 1, False),
        (9, 9, None, 1, True),
        (20, 2, None, 1, True),  # the end of the run
        (4, 4, 4, 1, True),
        (5, 5, 4, 1, False),
        (9, 9, 4, 1, True),  # the end of an epoch
        (12, 3, 4, 1, True),  # counted across epochs
        (13, 4, 4, 1, False),
        (6, 2, 3, 2, True),  # in the second epoch of five steps
        (6, 3, 3, 2, False),  # a batch later, whose step is not done
    ],
)
def test_a_validation_that_follows_a_batch_is_foreseen(
    step: int, batches: int, every: int | None, accumulate: int, expected: bool
) -> None:
    trainer = trainer_at(step, batches, accumulate_grad_batches=accumulate)
    if every:
        trainer.check_val_every_n_epoch = None
        ValidateEvery(every).on_train_batch_end(trainer)
    assert validation_due(trainer) is expected


def test_all_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), torch.rand(1).item()]

    random.gauss(0, 1), np.random.normal()  # of these every other one is kept for later
    torch.save(random_states(), tmp_path / "states")
    drawn = draw()
    draw()
    set_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert draw() == drawn


@pytest.mark.parametrize("links", [True, False])
def test_a_file_gets_a_second_name_on_any_file_system(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    one, other = tmp_path / "one", tmp_path / "other"
    keep_as(one, other)
    assert not other.exists(), "where there is none"
    for content in ("first", "second"):
        new = tmp_path / "new"
        new.write_text(content)
        new.replace(one)  # as a checkpoint is replaced
        for _ in range(2):
            keep_as(one, other)
        assert other.read_text() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_second_name_that_a_kill_left_half_given_is_given_again(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("best")
    os.link(one, tmp_path / ".other")
    keep_as(one, other)
    assert (one.read_text(), other.read_text()) == ("best", "best")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_finished_run_keeps_its_best_only(tmp_path: Path) -> None:
    own = Resumable(tmp_path, None)
    own.path.parent.mkdir()
    for name in ("last.ckpt", "best.ckpt", "best_at_8.ckpt", "best_at_12.ckpt"):
        (own.path.parent / name).touch()
    for _ in range(2):
        own.forget()
        assert [path.name for path in own.path.parent.iterdir()] == ["best.ckpt"]


@pytest.mark.parametrize(
    ("labels", "fingerprint", "same"), [(["a", "b"], "1", True), (["b", "a"], "1", False), (["a", "b"], "2", False)]
)
def test_a_run_goes_on_with_its_rows_and_labels(
    labels: list[str], fingerprint: str, same: bool, tmp_path: Path
) -> None:
    summary = {"labels": labels, "splits": {"train": {"fingerprint": fingerprint, "rows": 3}}}
    data: Any = SimpleNamespace(summary=summary)
    check_same_data(tmp_path, data)  # a run that knew nothing of its data yet
    write_json(tmp_path / "data.json", {"labels": ["a", "b"], "splits": {"train": {"fingerprint": "1", "rows": 3}}})
    if same:
        check_same_data(tmp_path, data)
        return
    with pytest.raises(UserError, match="the data has changed since the run began"):
        check_same_data(tmp_path, data)


def test_a_run_that_cut_long_sentences_does_not_go_on_with_whole_ones(tmp_path: Path) -> None:
    """Its steps would be others."""
    before = {"labels": ["O"], "splits": {"train": {"fingerprint": "1", "unread": 3}}}
    write_json(tmp_path / "data.json", before)
    for share, refused in ((0.0, False), (0.5, True)):
        own = {"labels": ["O"], "splits": {"train": {"fingerprint": "1", "windowed": share}}}
        data: Any = SimpleNamespace(summary=own)
        with pytest.raises(UserError, match="a version that cut long sentences") if refused else nullcontext():
            check_same_data(tmp_path, data)


def test_a_checkpoint_of_other_weights_is_refused() -> None:
    module: Any = torch.nn.Linear(2, 2)
    module.without_frozen = lambda state: {"bias": state["bias"]}
    check_same_weights({"bias": torch.zeros(2)}, module)
    for names in (["weight"], ["bias", "weight"], []):
        with pytest.raises(UserError, match="holds other weights than this run trains"):
            check_same_weights({name: torch.zeros(2) for name in names}, module)


def test_a_checkpoint_stays_until_the_next_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(configured().trainer, [], tmp_path)
    assert isinstance(trainer.strategy.checkpoint_io, WholeFiles)
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)

    def killed(_: Any, part: Path) -> None:
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        WholeFiles().save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_has_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    for name in ("last.ckpt", ".last.ckpt.1a2b", "best.ckpt"):
        write_json(tmp_path / "checkpoints" / name, {})
    with Resumable(tmp_path, None).listening():
        assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}

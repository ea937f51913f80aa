"""Pages that are drawn beside a multirun."""

import os
import signal
from pathlib import Path

import pytest

from thaw.reporting import pages


def test_what_cannot_be_drawn_is_said_and_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("line\nbreak", "other"):
        pages.draw_later(tmp_path / name)
    pages.wait()
    said = capfd.readouterr().err
    assert said.count("error: no page: ") == 2
    assert f"python evaluate.py run={tmp_path}/other" in said


def test_pages_of_a_process_that_was_killed_are_drawn_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(pages, "draw", drawn.append)
    pages.draw_later(tmp_path / "one")
    assert pages._process is not None
    os.kill(pages._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, pages._process.pid, os.WEXITED | os.WNOWAIT)
    pages.draw_later(tmp_path / "two")
    pages.wait()
    assert drawn == [tmp_path / "one", tmp_path / "two"]


def test_outside_a_multirun_nothing_is_put_off() -> None:
    assert not pages.beside()

"""Pages that are drawn beside a multirun."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from conftest import ROOT
from thaw.reporting import pages


def as_in(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Let Hydra say what it says in a job that was started with these overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", return_hydra_config=True, overrides=list(overrides))
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)


@pytest.fixture
def multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    as_in(monkeypatch, "hydra.mode=MULTIRUN")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["hydra.mode=MULTIRUN"], True),
        (["hydra.mode=RUN"], False),
        (["hydra.mode=MULTIRUN", "hydra/launcher=joblib"], False),
    ],
)
def test_only_runs_that_follow_one_another_leave_their_pages_to_a_process(
    overrides: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not pages.beside()
    as_in(monkeypatch, *overrides)
    assert pages.beside() is expected


@pytest.mark.usefixtures("multirun")
def test_what_cannot_be_drawn_is_said_and_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("line\nbreak", "other"):
        pages.draw(tmp_path / name)
    pages.wait()
    said = capfd.readouterr().err
    assert said.count("error: no page: ") == 2
    assert f"python evaluate.py run={tmp_path}/other" in said


@pytest.mark.usefixtures("multirun")
def test_pages_are_drawn_beside_a_multirun_on_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    process = SimpleNamespace(stdin=io.StringIO(), communicate=list, returncode=0)
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: started.append(options) or process)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    pages.draw(tmp_path)
    pages.wait()
    assert started[0]["creationflags"] == 512
    assert "process_group" not in started[0]
    monkeypatch.delattr(os, "nice")
    monkeypatch.setattr(sys, "stdin", [f'"{tmp_path.as_posix()}"'])
    drawn: list[Path] = []
    monkeypatch.setattr(pages, "_draw", drawn.append)
    pages.main()
    assert drawn == [tmp_path]


@pytest.mark.usefixtures("multirun")
def test_pages_of_a_process_that_was_killed_are_drawn_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(pages, "_draw", drawn.append)
    pages.draw(tmp_path / "one")
    assert pages._process is not None
    os.kill(pages._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, pages._process.pid, os.WEXITED | os.WNOWAIT)
    pages.draw(tmp_path / "two")
    pages.wait()
    assert drawn == [tmp_path / "one", tmp_path / "two"]

"""A multirun's report on W&B: what is sent, seen by a server of our own; and what is said where nothing can be sent."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from conftest import Run, configured
from thaw import files, runs
from thaw.errors import UserError
from thaw.reporting.members import read_members
from thaw.reporting.wandb_report import build_report, make_report, send_table
from thaw.training import tracking
from thaw.training.tracking import Tracker
from wandb_server import ENTITY, WandbServer

Make = Callable[..., Path]


@pytest.fixture
def multirun(tmp_path: Path) -> Make:
    """A function that writes the folder of a finished multirun, as far as its report reads it."""

    def make(*overrides: list[str], logger: str = "wandb_offline") -> Path:
        folder = tmp_path / "outputs/multirun/some runs"
        for number, own in enumerate(overrides):
            run = folder / f"run-{number}"
            runs.save_config(run, configured(*own, f"logger={logger}"))
            files.write_json(run / "environment.json", {"command": f"python train.py run {number}", "overrides": own})
            splits = {"train": {"rows": 90}, "validation": {"rows": 9, "labels": {}}}
            files.write_json(run / "data.json", {"splits": splits})
            metrics = {"validation/f1": 0.5 + number / 100, "test/accuracy": 0.6, "test/f1": 0.5, "baselines": {}}
            best = {"best": {"monitor": "val/f1", "score": 0.5 + number / 100, "step": 8}, "seconds": {"train": 2.0}}
            files.write_json(run / "metrics.json", metrics | best)
            files.write_jsonl(run / "predictions/test.jsonl", [])
            files.write_json(folder / f"run-{number}/wandb/offline-run-1-abc{number}/run-abc{number}.wandb", {})
        return folder

    return make


def grid() -> list[list[str]]:
    return [
        ["data=emotion", f"freeze={freeze}", f"optimizer.lr={lr}", f"seed={seed}"]
        for freeze in ("head", "none")
        for lr in ("1e-3", "1e-2")
        for seed in (1, 2)
    ]


def parts(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in spec["blocks"] if block["type"] == kind]


def panels(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found = [
        panel for one in parts(spec, "panel-grid") for panel in one["metadata"]["panelBankSectionConfig"]["panels"]
    ]
    return [panel["config"] for panel in found if panel["viewType"] == kind]


def test_a_report_is_saved_with_what_the_multirun_gave(multirun: Make, script: Run) -> None:
    folder = multirun(*grid())
    with WandbServer({"thaw": {folder.name: 8}}) as server:
        done = script("report.py", f"runs={folder}", f"wandb={ENTITY}/thaw", env={**server.environment})
        (sent,) = [variables for name, variables in server.requests if name == "upsertView"]
        assert f"http://127.0.0.1:{server.server_port}/{ENTITY}/thaw/reports/some-runs--" in done.stdout
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == (ENTITY, "thaw", folder.name)
    spec = json.loads(sent["spec"])
    sets = [one for block in parts(spec, "panel-grid") for one in block["metadata"]["runSets"]]
    for one in sets:
        assert {"section": "run", "name": "group"} in [item["key"] for item in one["filters"]["filters"]]
        assert one["filters"]["filters"][0]["value"] == folder.name
    swept = ["chosen.value.freeze", "optimizer.value.lr"]
    assert [[key["name"] for key in one["grouping"]] for one in sets] == [swept, []]
    lines = panels(spec, "Run History Line Plot")
    assert [line["metrics"] for line in lines] == [["val/f1"], ["train/loss"], ["val/loss"]]
    assert {line["xAxis"] for line in lines} == {"trainer/global_step"}
    (coordinates,) = panels(spec, "Parallel Coordinates Plot")
    accessors = [column["accessor"] for column in coordinates["columns"]]
    assert accessors == [*(f"config:{name}" for name in swept), "config:seed.value", "summary:validation/f1"]
    (table,) = parts(spec, "markdown-block")
    assert "| none | 1e-2 | 2 | 0.5650 ± 0.0071 |" in table["content"]
    assert "python train.py run 6" in sent["spec"], "the command of the best"


def test_a_report_tells_published_from_obtained_and_what_failed(multirun: Make) -> None:
    folder = multirun(*[["experiment=emotion_distilbert_last_layer", f"seed={seed}"] for seed in (1, 2)])
    files.write_json(folder / "run-2" / runs.FAILURE, {"overrides": ["seed=3"], "error": "no such file"})
    make_report(folder, "dry_run")
    spec = files.read_json(folder / "wandb_report.json")
    _, published, failed = (block["content"] for block in parts(spec, "markdown-block"))
    assert published.startswith("| experiment | figure | published | obtained |")
    assert "| emotion_distilbert_last_layer | test/accuracy | 0.83 ±" in published
    assert failed == "- failed: `run-2` no such file\n"


def test_a_dry_run_needs_no_account_and_says_how_to_sync(
    multirun: Make, script: Run, caplog: pytest.LogCaptureFixture
) -> None:
    folder = multirun(*grid())
    done = script("report.py", f"runs={folder}", "wandb=dry_run", env={"WANDB_API_KEY": None})
    assert "outputs/multirun/some runs/wandb_report.json" in done.stdout
    assert "wandb sync 'outputs/multirun/some runs'/*/wandb/offline-run-*" in done.stdout
    caplog.set_level(logging.INFO)
    Tracker(None, True, folder / "run-0").finish()
    assert "run-0'/wandb/offline-run-*" in caplog.text
    for run in folder.glob("*/wandb/*"):
        (run / f"{next(run.iterdir()).name}.synced").touch()
    assert runs.sync_command(folder) == ""


@pytest.mark.parametrize(("offline", "expected"), [(False, "my-run"), (True, None)])
def test_a_run_that_goes_on_goes_on_in_wandb_too(
    offline: bool, expected: str | None, multirun: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline it would be a file that overwrites the first part when it is sent."""
    run, given = multirun(*grid()) / "run-0", []
    monkeypatch.setattr(tracking, "build", lambda settings, *_, **__: given.append(settings) or MagicMock())
    for name in ("run-20261121_101530-a1b2", "run-20261121_112045-my-run"):
        (run / "wandb" / name).mkdir(parents=True)
    settings = {"_target_": "pytorch_lightning.loggers.WandbLogger", "group": None, "offline": offline}
    tracking.make_loggers({"logger": {"wandb": settings}}, run)
    assert given[0].get("id") == expected


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """A server that the W&B client of this process talks to; no login of the user's is seen."""
    import wandb

    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with WandbServer({"thaw": {}, "other": {}}) as own:
        for name, value in own.environment.items():
            monkeypatch.setenv(name, value)
        yield own
        wandb.teardown()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (f"{ENTITY}/nothing", "has no such project"),
        ("nobody/thaw", "has no such project"),
        (f"{ENTITY}/other", "has no runs of the group some runs"),
    ],
)
def test_where_there_is_nothing_to_report_on_it_is_said(
    multirun: Make, server: WandbServer, target: str, said: str
) -> None:
    with pytest.raises(UserError, match=f"{said}.*wandb sync"):
        make_report(multirun(*grid()), target)
    assert not [name for name, _ in server.requests if name.lower() in ("upsertview", "createproject")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_API_KEY", "", "No API key"),
        ("WANDB_API_KEY", "f" * 48, "Failed to verify credentials"),
        ("WANDB_BASE_URL", "http://127.0.0.1:9", "http://127.0.0.1:9 does not answer"),
    ],
    ids=["no login", "a wrong key", "no network"],
)
def test_without_account_or_network_it_is_said(
    multirun: Make, server: WandbServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{said}.*wandb login.*wandb=dry_run"):
        make_report(multirun(*grid()), f"{ENTITY}/thaw")


def test_the_table_of_a_multirun_is_a_run_of_the_same_group(multirun: Make, server: WandbServer) -> None:
    send_table(multirun(*grid(), logger="wandb"))
    begun = next(variables for name, variables in server.requests if name == "UpsertBucket")
    assert (begun["project"], begun["groupName"], begun["jobType"]) == ("thaw", "some runs", "summary")
    assert any("-sweep" in str(variables) for name, variables in server.requests if name == "CreateArtifact")


def test_a_table_that_cannot_be_sent_does_not_stop_the_summary(
    multirun: Make, server: WandbServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "f" * 48)
    send_table(multirun(*grid(), logger="wandb"))
    assert "the table was not sent to W&B" in capsys.readouterr().err


def test_what_cannot_be_a_report_is_said(multirun: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = multirun(*grid(), logger="none")
    with pytest.raises(UserError, match="not logged to W&B"):
        make_report(folder, "dry_run")
    with pytest.raises(UserError, match="neither entity/project nor dry_run"):
        make_report(folder, "thaw")
    members = read_members(folder)
    with pytest.raises(UserError, match="cannot be used in a report's filter"):
        build_report("name", "it's", members, "someone", "thaw")
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[reports\]'"):
        build_report("name", "group", members, "someone", "thaw")

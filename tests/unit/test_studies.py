"""A study of Optuna: trials that fail or are pruned, studies that go on and those that must not."""

import csv
import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution

from conftest import ROOT
from hydra_plugins.thaw_optuna.sweeper import OptunaSweeper
from thaw.errors import Pruned, UserError
from thaw.files import write_json
from thaw.runs import FAILURE
from thaw.study import ask, forget_killed, join, open_study, tell, ticket, untried

RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


class Launcher:
    """Stands for a launcher: a job is the call of a function with the values of its trial."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.batches, self.jobs = function, [], []  # type: ignore[var-annotated]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.batches.append((initial_job_idx, len(job_overrides)))
        return [self.result(list(overrides)) for overrides in job_overrides]

    def result(self, overrides: list[str]) -> JobReturn:
        given = dict(item.split("=", 1) for item in overrides)
        (trial,) = OverridesParser.create().parse_overrides([f"trial={given.pop('hydra.sweeper.trial', 'null')}"])
        self.jobs.append(given)
        done = JobReturn(status=JobStatus.COMPLETED)
        try:
            done.return_value = self.function(given, trial.value())
        except Exception as error:
            done.return_value, done.status = error, JobStatus.FAILED
        return done


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., tuple[Launcher, list[dict[str, str]]]]:
    """A function that sweeps a function of the overrides, and gives the launcher and the rows of study.csv."""

    class Context:
        config_loader = None

    def sweep(
        function: Callable[..., Any],
        *arguments: str,
        mode: str = "max",
        monitor: str = "val/f1",
        launcher: type[Launcher] = Launcher,
        **settings: Any,
    ) -> tuple[Launcher, list[dict[str, str]]]:
        own = OmegaConf.load(ROOT / "conf/hydra/sweeper/optuna.yaml")
        plain: Any = {**OmegaConf.to_container(own), "params": {}, **settings}  # type: ignore[dict-item]
        sweeper = OptunaSweeper(**plain)
        sweeper.hydra_context = Context()  # type: ignore[assignment]
        hydra = {"sweep": {"dir": str(tmp_path / "study")}, "job": {"config_name": "train"}}
        sweeper.config = OmegaConf.create({"monitor": monitor, "mode": mode, "hydra": hydra})
        runs = launcher(function)
        sweeper.launcher = runs  # type: ignore[assignment]
        sweeper.sweep(list(arguments))
        with (tmp_path / "study" / "study.csv").open() as file:
            return runs, list(csv.DictReader(file))

    return sweep


def score(given: dict[str, str], _: str) -> float:
    """Best at a rate of 0.01."""
    return -abs(math.log10(float(given["optimizer.lr"])) + 2)


Study = Callable[..., tuple[Launcher, list[dict[str, str]]]]


def test_a_study_finds_the_best_and_shows_it(study: Study, tmp_path: Path) -> None:
    launcher, rows = study(score, RATE, "freeze=none,head", "sweep=optuna", "seed=7", n_trials=25, n_jobs=2)
    assert launcher.batches == [*((i, 2) for i in range(0, 24, 2)), (24, 1)]
    assert all(job["seed"] == "7" for job in launcher.jobs)
    assert all(job["optimizer.lr"] == f"{float(job['optimizer.lr']):.4g}" for job in launcher.jobs)
    best = max(rows, key=lambda row: float(row["val/f1"]))
    assert float(best["optimizer.lr"]) == pytest.approx(0.01, rel=0.5)
    page = (tmp_path / "study/study.html").read_text()
    assert f"python train.py seed=7 optimizer.lr={best['optimizer.lr']} freeze={best['freeze']}" in page
    assert page.count("<svg") == 2, "the scores, and the importance of two parameters"


def test_settings_that_a_sweep_does_not_search_stay_as_they_were_typed(study: Study) -> None:
    launched: list[list[str]] = []

    class Recording(Launcher):
        def launch(self, jobs: Any, initial_job_idx: int) -> Any:
            launched.extend(jobs)
            return super().launch([[item for item in job if "=" in item] for job in jobs], initial_job_idx)

    study(score, RATE, "~callbacks.early_stopping", "+logger.more=[a,b]", n_trials=1, launcher=Recording)
    assert launched[0][:2] == ["~callbacks.early_stopping", "+logger.more=[a,b]"], (
        "Hydra deletes ~key=null if it is null"
    )


def test_the_lowest_score_is_the_best_where_low_is_good(study: Study) -> None:
    _, rows = study(lambda given, _: -score(given, _), RATE, mode="min", n_trials=25)
    best = min(rows, key=lambda row: float(row["val/f1"]))
    assert float(best["optimizer.lr"]) == pytest.approx(0.01, rel=0.5)


def test_a_failing_trial_is_not_the_end(study: Study) -> None:
    outcomes = iter([0.5, math.nan, UserError("too large"), math.inf, None, 0.7])

    def job(given: dict[str, str], _: str) -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    _, rows = study(job, RATE, n_trials=6)
    assert [row["state"] for row in rows] == ["complete", "fail", "fail", "fail", "fail", "complete"]
    assert rows[2]["error"] == "too large."
    assert "nan" in rows[1]["error"]


def test_a_killed_process_is_not_the_end(study: Study) -> None:
    """Of a batch in processes nothing comes back when one of them is killed."""

    class Killing(Launcher):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            if initial_job_idx == 0:
                raise RuntimeError("out of memory")
            return super().launch(job_overrides, initial_job_idx)

    _, rows = study(score, RATE, n_trials=4, n_jobs=2, launcher=Killing)
    assert [row["state"] for row in rows] == ["fail", "fail", "complete", "complete"]
    assert rows[0]["error"] == "out of memory"


def test_a_study_without_a_score_is_an_error(study: Study) -> None:
    with pytest.raises(UserError, match=r"none of 3 trials gave a score: the score is nan"):
        study(lambda *_: math.nan, RATE, n_trials=3)


def test_a_study_whose_runs_all_failed_has_its_summary(study: Study, tmp_path: Path) -> None:
    def fails(given: dict[str, str], _: str) -> float:
        failure = {"overrides": ["freeze=none"], "error": "out of luck"}
        folder = tmp_path / "study" / given["optimizer.lr"]
        folder.mkdir()
        write_json(folder / FAILURE, failure)
        return math.nan

    with pytest.raises(UserError, match=r"none of 2 trials gave a score: the score is nan"):
        study(fails, RATE, n_trials=2)
    assert (tmp_path / "study/summary.md").read_text().count("out of luck") == 2


def test_a_fold_is_nothing_to_search(study: Study) -> None:
    with pytest.raises(UserError, match=r"data\.fold: one fold is easier than another"):
        study(score, RATE, "data.fold=1,2")


def test_nothing_to_search_is_an_error(study: Study) -> None:
    with pytest.raises(UserError, match="nothing to search"):
        study(score, "optimizer.lr=1e-3")


def test_a_killed_study_goes_on(study: Study, tmp_path: Path) -> None:
    seen: list[str] = []

    def killed(given: dict[str, str], trial: str) -> float:
        seen.append(given["optimizer.lr"])
        if len(seen) == 4:
            raise KeyboardInterrupt
        return score(given, trial)

    with pytest.raises(KeyboardInterrupt):
        study(killed, RATE, n_trials=6, sampler="random")
    launcher, rows = study(score, RATE, n_trials=6, sampler="random")
    assert [row["state"] for row in rows] == [*["complete"] * 3, "killed", *["complete"] * 3]
    assert launcher.jobs[0]["optimizer.lr"] == seen[3], "what was killed is tried again"
    assert len({row["optimizer.lr"] for row in rows}) == 6, "and nothing else is"
    assert study(score, RATE, n_trials=6)[0].jobs == [], "it is through"
    assert len(study(score, RATE, n_trials=8)[0].jobs) == 2, "and can be made longer"


def test_a_grid_is_gone_through_once(study: Study) -> None:
    arguments = ("optimizer.lr=1e-3,1e-2,1e-1", "seed=range(1,3)")
    launcher, _ = study(score, *arguments, sampler="grid", n_jobs=4)
    assert launcher.batches == [(0, 4), (4, 2)]
    assert len({(job["optimizer.lr"], job["seed"]) for job in launcher.jobs}) == 6
    assert study(score, *arguments, sampler="grid")[0].jobs == []
    limited, _ = study(score, "optimizer.lr=1e-3,1e-2,1e-1", "seed=1,2", sampler="grid", n_trials=1)
    assert limited.jobs == []


def test_another_search_in_the_same_folder_is_refused(study: Study) -> None:
    study(score, "optimizer.lr=1e-3,1e-2", n_trials=2)
    with pytest.raises(UserError, match=r"begun with optimizer\.lr=0\.001,0\.01\. .*hydra\.sweep\.dir"):
        study(score, "optimizer.lr=1e-3,1e-1", n_trials=3)


def test_presets_and_the_command_line(study: Study) -> None:
    launcher, _ = study(score, "seed=3", RATE, params={"seed": "1,2", "optimizer.lr": "1,2"}, n_trials=3)
    assert all(job["seed"] == "3" for job in launcher.jobs), "the command line counts"
    assert all(float(job["optimizer.lr"]) < 0.1 for job in launcher.jobs)


def test_bad_trials_are_pruned_from_any_process(study: Study) -> None:
    """A run gets at its study through the ticket alone."""

    def job(given: dict[str, str], ticket: str) -> float:
        trial = join(ticket)
        for validation in (1, 2, 3):
            trial.report(score(given, ""), validation)
            if trial.should_prune():
                raise Pruned("worse than the others")
        return score(given, "")

    _, rows = study(job, RATE, n_trials=12, startup_trials=3, sampler="random")
    states = [row["state"] for row in rows]
    assert set(states) == {"complete", "pruned"}
    assert states[:3] == ["complete"] * 3
    pruned = [float(row["val/f1"]) for row in rows if row["state"] == "pruned"]
    assert max(pruned) < max(float(row["val/f1"]) for row in rows if row["state"] == "complete")
    launcher, _ = study(lambda given, ticket: 1.0 if ticket is None else 0.0, RATE, n_trials=13, pruner="none")
    assert len(launcher.jobs) == 1, "no ticket where none is pruned"


def test_a_study_that_shares_no_storage_may_go_on_elsewhere(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(KeyboardInterrupt):
            study(killed, RATE, n_trials=1)
    assert [row["state"] for row in study(score, RATE, n_trials=1)[1]] == ["killed", "complete"]


def test_trials_of_another_machine_are_left_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share the storage, and may be running."""
    storage = f"sqlite:///{tmp_path}/shared.db"

    def killed(*_: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(KeyboardInterrupt):
            study(killed, RATE, n_trials=2, storage=storage)
    _, rows = study(score, RATE, n_trials=2, storage=storage)
    assert [row["state"] for row in rows] == ["running", "complete", "complete"]


def test_two_machines_search_on_without_each_other(tmp_path: Path) -> None:
    """Their sweeps begin with the same seed, and neither waits for the trials of the other."""
    storage, search = f"sqlite:///{tmp_path}/shared.db", {"mode": "max"}
    rates, grid = ({key: own} for key, own in (("lr", FloatDistribution(0, 1)), ("n", CategoricalDistribution("abcd"))))
    folder = tmp_path / "random"
    two = [(open_study(folder, storage, "random", 0, search, owner), owner) for owner in ("here:x", "there:x")]
    values = [ask(study, rates, owner).params["lr"] for _ in range(3) for study, owner in two]
    assert len(set(values)) == 6
    two = [(open_study(tmp_path / "grid", storage, "grid", 0, search, owner), owner) for _, owner in two]
    for study, owner in two * 2:
        study.enqueue_trial(untried(study, grid)[0])
        ask(study, grid, owner)
    assert sorted(trial.params["n"] for trial in study.trials) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["model=distilbert"], {}, "begun with model=minilm"),
        ([], {}, "begun with model=minilm"),
        (["model=minilm", "seed=7"], {}, "begun without seed"),
        (["model=minilm"], {"mode": "min"}, "begun with mode=max"),
        (["model=minilm"], {"monitor": "val/loss"}, "begun with monitor=val/f1"),
        (["model=minilm", "optimizer.lr=interval(1e-4,1)"], {}, "begun with optimizer.lr=0.0001 to 0.1, log"),
        (["model=minilm", "freeze=none,head"], {}, "begun without freeze"),
    ],
)
def test_a_study_is_of_one_search(study: Study, arguments: list[str], settings: dict[str, Any], said: str) -> None:
    study(score, RATE, "model=minilm", n_trials=2)
    with pytest.raises(UserError, match=rf"{said}.*hydra\.sweep\.dir"):
        study(score, RATE, *arguments, n_trials=4, **settings)


def test_how_a_study_is_run_may_change(study: Study) -> None:
    study(score, RATE, "model=minilm", "trainer.progress_bar=false", "sweep=optuna", n_trials=2)
    others = ["logger=wandb_offline", "logger.wandb.project=x", "data.num_workers=2"]
    launcher, _ = study(
        score, *others, "model=minilm", RATE, n_trials=4, n_jobs=2, sampler="random", seed=3, pruner="none"
    )
    assert len(launcher.jobs) == 2


def test_a_study_without_trials_is_of_no_search_yet(tmp_path: Path) -> None:
    begun = {"mode": "max", "model": "minilm"}
    open_study(tmp_path, None, "tpe", 0, {**begun, "model": "minlm"})
    with pytest.raises(UserError, match="begun with mode=max"):
        open_study(tmp_path, None, "tpe", 0, {**begun, "mode": "min"})
    study = open_study(tmp_path, None, "tpe", 0, begun)
    study.ask()
    assert open_study(tmp_path, None, "tpe", 0, begun).trials
    with pytest.raises(UserError, match=r"begun with model=minilm and without data"):
        open_study(tmp_path, None, "tpe", 0, {**begun, "model": "bert", "data": "imdb"})


def test_what_becomes_of_single_trials(tmp_path: Path) -> None:
    study = open_study(tmp_path, None, "random", 0, {"mode": "max"})
    space = {"n": CategoricalDistribution("ab")}
    study.ask()
    assert forget_killed(study, space, None) == [], "its process was killed before it had values"
    first, second, third = (ask(study, space, None) for _ in range(3))
    with pytest.raises(UserError, match="this study has searched other values"):
        ask(study, {"n": CategoricalDistribution("cd")}, None)
    first.report(1.0, 1)
    assert tell(study, first.number, 1.0, tmp_path) is None
    pruner = {"n_startup_trials": 1, "n_warmup_steps": 0, "interval_steps": 1}
    joined = join(ticket(study, second.number, None, tmp_path, pruner))
    joined.report(0.5, 1)
    assert joined.should_prune(), "one trial is enough to compare with"
    write_json(tmp_path / FAILURE, {"overrides": [], "error": "out of luck"})
    assert tell(study, third.number, math.nan, tmp_path) == "out of luck"


def test_equal_trials_of_a_batch_are_one_run(study: Study) -> None:
    """Two processes would write the same folder."""
    seen: list[tuple[str, ...]] = []

    def job(given: dict[str, str], _: str) -> float:
        if given["freeze"] == "none":
            raise Pruned("worse than the others")
        return score(given, "")

    class Watched(Launcher):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            seen.append(tuple(" ".join(own[:2]) for own in job_overrides))
            return super().launch(job_overrides, initial_job_idx)

    arguments = ("optimizer.lr=1e-2,1e-1", "freeze=none,head")
    _, rows = study(job, *arguments, n_trials=16, n_jobs=8, sampler="random", launcher=Watched)
    assert [len(batch) for batch in seen] == [len(set(batch)) for batch in seen]
    assert len(rows) == 16
    for row in rows:
        assert row["state"] == ("pruned" if row["freeze"] == "none" else "complete")
        if row["freeze"] == "head":
            assert float(row["val/f1"]) == score(row, "")

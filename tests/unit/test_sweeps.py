"""The sweeper over Optuna: search spaces, studies that go on, trials that fail; the presets."""

import csv
import gc
import math
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from conftest import ROOT, Run, configured
from hydra_plugins.thaw_optuna.sweeper import OptunaSweeper
from thaw.errors import Pruned, UserError
from thaw.multirun import Summarise
from thaw.runs import FAILURE, write_json
from thaw.settings import check
from thaw.study import join, search_space

RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def space(*overrides: str, grid: bool = False) -> dict[str, Any]:
    return dict(search_space(OverridesParser.create().parse_overrides(list(overrides)), grid))


def test_the_search_space_is_hydras_own_syntax() -> None:
    from optuna.distributions import CategoricalDistribution as Choice
    from optuna.distributions import FloatDistribution as Float
    from optuna.distributions import IntDistribution as Int

    assert space(RATE)["optimizer.lr"] == Float(1e-4, 1e-1, log=True)
    assert space("a=interval(0,1)")["a"] == Float(0, 1)
    assert space("a=int(interval(1,6))")["a"] == Int(1, 6)
    assert space("a=range(1,6)")["a"] == Int(1, 5)
    assert space("a=range(2,9,3)")["a"] == Int(2, 8, step=3)
    assert space("a=range(0.0,0.5,0.1)")["a"] == Float(0.0, 0.4, step=0.1)
    assert space("a=tag(log,int(interval(8,64)))")["a"] == Int(8, 64, log=True)
    assert space("freeze=none,head", "+b=choice(x,[1,2],true)") == {
        "freeze": Choice(["none", "head"]), "+b": Choice(["x", "[1,2]", "True"]),
    }  # fmt: skip
    assert space("seed=1", "a=range(1,4)", grid=True) == {"a": Choice(["1", "2", "3"])}


@pytest.mark.parametrize(
    ("override", "grid", "said"),
    [
        ("a=tag(lgo,interval(1,2))", False, "unknown tag lgo"),
        ("a=interval(1,2)", True, "a grid has no intervals"),
        ("a=tag(log,interval(0,2))", False, "a=tag"),
        ("a=interval(2,1)", False, "a=interval"),
        ("a=range(3,3)", False, "a=range"),
    ],
)
def test_what_cannot_be_searched_is_said(override: str, grid: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        space(override, grid=grid)


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
        launcher: type[Launcher] = Launcher,
        **settings: Any,
    ) -> tuple[Launcher, list[dict[str, str]]]:
        own = OmegaConf.load(ROOT / "conf/hydra/sweeper/optuna.yaml")
        plain: Any = {**OmegaConf.to_container(own), "params": {}, **settings}  # type: ignore[dict-item]
        sweeper = OptunaSweeper(**plain)
        sweeper.hydra_context = Context()  # type: ignore[assignment]
        hydra = {"sweep": {"dir": str(tmp_path / "study")}, "job": {"config_name": "train"}}
        sweeper.config = OmegaConf.create({"monitor": "val/f1", "mode": mode, "hydra": hydra})
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
    best = max(rows, key=lambda row: float(row["val/f1"]))
    assert float(best["optimizer.lr"]) == pytest.approx(0.01, rel=0.5)
    page = (tmp_path / "study/study.html").read_text()
    assert f"python train.py seed=7 optimizer.lr={best['optimizer.lr']} freeze={best['freeze']}" in page
    assert page.count("<svg") == 2, "the scores, and the importance of two parameters"


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


def test_the_memory_of_a_run_is_free_before_the_next() -> None:
    """The parts of a run refer to each other, so that only the collector frees them."""

    class Part:
        other: "Part"

    one, two = Part(), Part()
    one.other, two.other = two, one
    left = weakref.ref(one)
    gc.disable()
    try:
        del one, two
        Summarise().on_job_end(OmegaConf.create(), job_return=None)
        assert left() is None
    finally:
        gc.enable()
        gc.unfreeze()


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
    with pytest.raises(UserError, match=r"has searched other values.*hydra\.sweep\.dir"):
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


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "conf/sweep").glob("*.yaml")))
def test_every_value_of_a_preset_is_one_that_train_takes(preset: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        own = compose("train", [f"sweep={preset}"], return_hydra_config=True).hydra
    assert (str(own.mode) == "RunMode.MULTIRUN") == (preset != "none"), "a preset needs no -m"
    for key, value in (own.sweeper.params or {}).items():
        (override,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
        sweep: Any = override.value()
        ends = [str(sweep.start), str(sweep.end)] if override.is_interval_sweep() else override.sweep_string_iterator()
        for one in ends:
            plain: Any = OmegaConf.to_container(configured(f"{key}={one}"), resolve=True)
            check(plain)


def test_settings_of_the_sweeper_are_checked(script: Run) -> None:
    done = script("train.py", "sweep=optuna", "hydra.sweeper.sampler=best", ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "sampler=best is not one of: tpe, random, grid" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["sweep=optuna"], "optuna", "optuna"),
        (["-m", "hydra/launcher=joblib"], "hydra_plugins.hydra_joblib_launcher", "joblib"),
        (["-m", "hydra/launcher=submitit_slurm"], "hydra_plugins.hydra_submitit_launcher", "submitit"),
    ],
)
def test_a_missing_extra_is_named(arguments: list[str], package: str, extra: str, tmp_path: Path) -> None:
    """As in an environment without the package: Hydra finds no plugin, Python no module."""
    code = f"""
import pkgutil, runpy, sys
walk = pkgutil.walk_packages
pkgutil.walk_packages = lambda *a, **k: (found for found in walk(*a, **k) if not found.name.startswith({package!r}))
sys.modules[{package!r}] = None
sys.argv = ["train.py", *{arguments!r}, "seed=1,2"]
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"pip install -e '.[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_optuna_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from hydra_plugins.thaw_optuna import sweeper; import thaw.study; print('optuna' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    assert optuna.__version__.startswith("5.")

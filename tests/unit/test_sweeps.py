"""What stands around a sweep: search spaces, presets, extras that are missing, memory between runs."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from scipy import stats

from conftest import ROOT, Run, configured
from thaw.errors import UserError
from thaw.multirun import Summarise
from thaw.reporting.members import Group, Member
from thaw.reporting.rivals import best_of, holm, resampled, reservation, rivals, welch
from thaw.settings import check
from thaw.study import search_space
from thaw.training import gpus


def space(*overrides: str, grid: bool = False) -> dict[str, Any]:
    return dict(search_space(OverridesParser.create().parse_overrides(list(overrides)), grid))


def test_the_search_space_is_hydras_own_syntax() -> None:
    from optuna.distributions import CategoricalDistribution as Choice
    from optuna.distributions import FloatDistribution as Float
    from optuna.distributions import IntDistribution as Int

    assert space("optimizer.lr=tag(log,interval(1e-4,1e-1))")["optimizer.lr"] == Float(1e-4, 1e-1, log=True)
    assert space("a=interval(0,1)")["a"] == Float(0, 1)
    assert space("a=int(interval(1,6))")["a"] == Int(1, 6)
    assert space("a=range(1,6)")["a"] == Int(1, 5)
    assert space("a=range(2,9,3)")["a"] == Int(2, 8, step=3)
    assert space("a=range(0.0,0.5,0.1)")["a"] == Float(0.0, 0.4, step=0.1)
    assert space("a=tag(log,int(interval(8,64)))")["a"] == Int(8, 64, log=True)
    assert space("a=tag(log,range(1,6))")["a"] == Int(1, 5, log=True)
    assert space("a=range(5,0,-2)")["a"] == Choice(["5", "3", "1"])
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


def groups_of(scores: list[list[float]]) -> list[Group]:
    """A group for each list, with a run for each score."""
    return [
        Group({"freeze": str(i)}, [Member(Path(), {}, "finished", score) for score in own])
        for i, own in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.9, 0.8], [0.7, 0.6]], ""),
        ([[0.9], [0.8]], ""),
        ([[0.9, 0.8], [0.8, 0.9], [0.1, 0.1]], ", tied with freeze=1"),
        ([[0.9], [0.7, 0.6]], ", by a single run, where others have several: it may be luck"),
    ],
)
def test_a_best_that_may_be_luck_is_named_as_such(scores: list[list[float]], said: str) -> None:
    groups = groups_of(scores)
    assert reservation(groups, groups[0]) == said


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.9], [0.8]], "With one seed each, what differs may be chance: repeat with seed=1,2,3, or sweep=folds."),
        ([[0.9, 0.91, 0.92], [0.5]], "Not tested: freeze=1. A test takes two seeds of each, and scores that vary over"),
        ([[0.9], [0.5, 0.51]], "Not tested: freeze=1."),
        ([[0.9, 0.9], [0.8, 0.8]], "Not tested: freeze=1."),
        ([[0.9, 0.9], [0.8, 0.81]], "On these validation rows each of the others is worse by more than chance"),
        (
            [[0.9, 0.91, 0.92], [0.5, 0.51, 0.52], [0.4]],
            "On these validation rows each of the others that could be tested is worse by more than chance (p < 0.05, "
            "Welch's t-test over seeds with Holm's correction). Not tested: freeze=2.",
        ),
        (
            [[0.9, 0.91, 0.92], [0.91, 0.9, 0.9], [0.4]],
            "told apart from freeze=1 (p = 0.39), by Welch's t-test over seeds with Holm's",
        ),
        (
            [[0.9, 0.91, 0.92], *[[0.87, 0.88, 0.89]] * 10],
            "cannot be told apart from freeze=1 (p = 0.21), freeze=2 (p = 0.21), ",
        ),
        (
            [[0.9, 0.91, 0.92], [0.5, 0.51, 0.52]],
            "On these validation rows each of the others is worse by more than chance (p < 0.05, Welch's",
        ),
        (
            [[0.9, 0.91, 0.92], [0.5, 0.51, 0.52], [0.85, 0.9, 0.95]],
            "On these validation rows it cannot be told apart from freeze=2 (p = 0.76), by Welch's",
        ),
        ([[0.9, 0.8]], ""),
    ],
)
def test_the_best_of_a_sweep_is_told_from_chance(scores: list[list[float]], said: str) -> None:
    groups = groups_of(scores)
    assert said in rivals(groups, groups[0])
    assert bool(said) == bool(rivals(groups, groups[0]))


def folded(*scores: float, setting: str = "0") -> Group:
    """Runs of five folds; each five of the scores are of another seed."""
    members = [
        Member(Path(), {"data.fold": str(i % 5)}, "finished", score, share=0.1) for i, score in enumerate(scores)
    ]
    return Group({"freeze": setting}, members)


def test_over_folds_differences_are_paired_and_not_taken_for_independent() -> None:
    best, other = folded(0.9, 0.7, 0.8, 0.6, 0.75), folded(0.88, 0.69, 0.76, 0.58, 0.74, setting="1")
    differences = np.array([0.02, 0.01, 0.04, 0.02, 0.01])
    t = differences.mean() / np.sqrt((1 / 5 + 0.1) * differences.var(ddof=1))
    assert resampled(best, other) == pytest.approx(2 * stats.t.sf(t, 4))
    assert welch(best, other) > 0.5, "folds differ more than settings do"
    by = "By the validation scores of the folds "
    said = "each of the others is worse by more than chance (p < 0.05, the corrected t-test over folds with Holm's"
    assert rivals([best, other], best).startswith(by + said)
    best, close = folded(0.9, 0.7, 0.8), folded(0.9, 0.71, 0.78, setting="1")
    assert rivals([best, close], best).startswith(f"{by}it cannot be told apart from")
    best, constant = folded(0.9, 0.9), folded(0.5, 0.5, setting="1")
    assert "A test takes two folds of each, and scores that vary" in rivals([best, constant], best)
    alike = [folded(0.9, setting=str(i)) for i in range(2)]
    assert "With one seed each" in rivals(alike, alike[0]), "one fold for all is no cross-validation"


def test_a_fold_that_lacks_a_seed_counts_as_much_as_the_others() -> None:
    """Without its second run of the hardest fold, what is worse on every fold would have the higher mean."""
    first, second = [0.9, 0.8, 0.7, 0.6, 0.5], [0.89, 0.795, 0.69, 0.595, 0.49]
    better, worse = folded(*first, *first), folded(*second, *second[:4], setting="1")
    assert np.mean([member.score for member in better.members]) < np.mean([member.score for member in worse.members])
    assert better.scores() == pytest.approx(first)
    assert worse.scores() == pytest.approx(second)
    assert best_of([worse, better], "max") is better
    assert best_of([worse, better], "min") is worse


def test_p_values_of_several_tests_are_corrected() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


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


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            UserError("metrics.json: damaged", "Restore it."),
            2,
            "error: no summary: metrics.json: damaged. Restore it.\n",
        ),
        (IndexError("nothing"), 1, "IndexError: nothing\n"),
    ],
)
def test_a_sweep_without_its_summary_has_failed(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra would turn the error into a warning."""

    def fail(_: Path) -> int:
        raise error

    monkeypatch.setattr("thaw.reporting.sweep.summarise", fail)
    monkeypatch.setattr("thaw.reporting.wandb_report.send_table", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        Summarise().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": "runs"}}}))
    assert ended.value.code == code
    assert capsys.readouterr().err.endswith(said)


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


@pytest.mark.parametrize(
    ("settings", "rates", "searched"),
    [
        (["model=bert"], "5e-06,1e-05,2e-05,4e-05,8e-05", "interval(4e-06, 0.0001)"),
        (["freeze=head"], "0.00025,0.0005,0.001,0.002,0.004", "interval(0.0002, 0.005)"),
        (["optimizer.lr=abc"], "abc", "interval(abc, abc)"),
    ],
)
def test_rates_are_swept_around_that_of_encoder_and_strategy(settings: list[str], rates: str, searched: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        grid, search = (
            compose("train", [f"sweep={preset}", *settings], return_hydra_config=True).hydra.sweeper.params
            for preset in ("learning_rate", "optuna")
        )
    assert (grid["optimizer.lr"], search["optimizer.lr"]) == (rates, f"tag(log, {searched})")


def test_settings_of_the_sweeper_are_checked(script: Run) -> None:
    done = script("train.py", "sweep=optuna", "hydra.sweeper.sampler=best", ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "sampler=best is not one of: tpe, random, grid" in done.stderr


@pytest.mark.parametrize("visible", [None, "4,6"])
def test_processes_of_joblib_take_turns_with_the_gpus(
    visible: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call stands for a process that lasts as long as what it returns."""
    launcher = SimpleNamespace(_target_="hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher")
    monkeypatch.setattr(gpus.HydraConfig, "get", lambda: SimpleNamespace(launcher=launcher))
    monkeypatch.setattr(gpus.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))
    begin = gpus.take_gpu.__wrapped__

    def taken() -> tuple[str, Any]:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        lock = begin()
        return os.environ["CUDA_VISIBLE_DEVICES"], lock

    first, second = ("4", "6") if visible else ("0", "1")
    processes = [taken() for _ in range(3)]
    assert [gpu for gpu, _ in processes] == [first, second, first]
    processes[1][1].release()  # as when a process ends
    assert taken()[0] == second
    launcher._target_ = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    assert begin() is None


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

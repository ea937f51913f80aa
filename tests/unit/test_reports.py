"""What is said of runs that are finished: summaries without a test split, options, tables; and which count as done."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from conftest import Run, configured
from thaw import files, runs
from thaw.errors import UserError
from thaw.exploration.explore import explore
from thaw.labels import LabelSet
from thaw.multirun import begin
from thaw.reporting import summary, sweep_plots
from thaw.reporting.comparison import report
from thaw.reporting.members import comparable, read_members
from thaw.reporting.summary import latex_table, markdown_table
from thaw.reporting.sweep import command_of, overview, spread, summarise
from thaw.settings import check, plain

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that writes a finished run, as far as the page of its multirun reads it."""

    def run(name: str, *overrides: str, split: str = "test", rows: str = "a", single: bool = True) -> Path:
        folder = tmp_path / "sweep" / name
        runs.save_config(folder, config := configured(*overrides))
        command = f"python train.py {' '.join(overrides)}"
        files.write_json(folder / "environment.json", {"command": command, "overrides": overrides})
        files.write_json(
            folder / "data.json",
            {
                "files": {"all" if single else "train": ["rows.csv"]},
                "splits": {"train": {"rows": 90}, "validation": {"rows": 9, "labels": {rows: 9}}},
            },
        )
        figures = {"validation/f1": 0.5, f"{split}/accuracy": 0.6, f"{split}/f1": 0.5, "baselines": {}}
        best = {"best": {"monitor": config.monitor, "score": 0.5, "step": 8}, "seconds": {"train": 2.0}}
        files.write_json(folder / "metrics.json", figures | best)
        for own in dict.fromkeys(["validation", split]):
            files.write_jsonl(folder / f"predictions/{own}.jsonl", [])
        return folder

    return run


def test_figures_of_validation_are_not_called_test(make: Make) -> None:
    folders = [make(f"freeze-{one}", f"freeze={one}", split="validation") for one in ("head", "none")]
    sweep = folders[0].parent
    summarise(sweep)
    table = list(csv.DictReader((sweep / "runs.csv").open()))
    assert [row["validation/accuracy"] for row in table] == ["0.6", "0.6"]
    for name in ("summary.html", "summary.md", "summary.tex", "runs.csv"):
        assert not re.search("test[ /]accuracy|test rows", (sweep / name).read_text())
    page = (sweep / "summary.html").read_text()
    assert "<th>validation accuracy</th>" in page
    assert "of the rows that picked" in page


def test_where_some_runs_have_a_test_split_each_figure_is_told(make: Make) -> None:
    make("one", "freeze=head", split="validation")
    folder = make("two", "freeze=none").parent
    over = overview(read_members(folder))
    assert over.header == [
        "freeze", "runs", "best val/f1", "test accuracy", "test f1", "validation accuracy", "validation f1", "seconds",
    ]  # fmt: skip
    assert over.rows[0][3:7] == ["–", "–", "0.6000", "0.5000"]
    assert over.rows[1][3:6] == ["0.6000", "0.5000", "–"]
    summarise(folder)
    table = list(csv.DictReader((folder / "runs.csv").open()))
    assert [(row["validation/accuracy"], row["test/accuracy"]) for row in table] == [("0.6", ""), ("", "0.6")]
    make("one", "freeze=head")
    assert "the test rows have no say" in overview(read_members(folder)).about


def test_runs_of_several_folders_share_a_table(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What one command states and another leaves at its default is the same; what changes no result does not count."""
    monkeypatch.chdir(tmp_path)
    multirun = make("one", "sweep=seeds", "seed=1").parent
    make("two", "sweep=seeds", "seed=2")
    singles = [make(f"../single/{i}", *own) for i, own in enumerate((
        ["freeze=none", "loss.label_smoothing=0.0", "seed=3", "trainer.progress_bar=false", "logger=tensorboard"],
        ["freeze=all_but_last_n", "freeze.n=2", "optimizer.lr=3e-4", "loss=cross_entropy", "data.max_length=null"],
    ))]  # fmt: skip
    report(configured(f"runs='{','.join(map(str, (multirun, *singles, multirun / 'one')))}'", "output=all/table.html",
                      verb="report"))  # fmt: skip
    with (tmp_path / "all/table.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["sweep/one", "sweep/two", "single/0", "single/1"]
    over = (tmp_path / "all/table.md").read_text().splitlines()
    assert over[4] == "| freeze | freeze.n | optimizer.lr | runs | best val/f1 | test accuracy | test f1 | seconds |"
    assert [line.split(" | ")[:4] for line in over[6:8]] == [
        ["| none", "–", "0.0001", "3"], ["| all_but_last_n", "2", "0.0003", "1"],
    ]  # fmt: skip
    assert 'href="../single/1/report.html"' in (tmp_path / "all/table.html").read_text()
    assert "Summary  all/table.html" in capsys.readouterr().out
    for given, said in (
        (f"{multirun},{multirun}/../sweep", "is given twice"),
        (f"{multirun},nowhere", "no such run folder"),
    ):
        with pytest.raises(UserError, match=said):
            report(configured(f"runs='{given}'", verb="report"))
    with pytest.raises(UserError, match="split is for two runs"):
        report(configured(f"runs='{multirun},{multirun}/one'", "split=validation", verb="report"))


def test_runs_of_several_commands_are_told_apart(make: Make) -> None:
    """By as few settings as that takes; what an experiment sets was not typed."""
    folder = make("one", "experiment=emotion_distilbert_full", "data.path=x").parent
    make("two", "experiment=emotion_distilbert_full", "data.path=x", "seed=2")
    make("again", "experiment=emotion_distilbert_full", "seed=2", "data.path=x", "trainer.log_every=3")
    make("three", "experiment=emotion_hub_distilbert", "data.path=x")
    make("fold", "experiment=emotion_distilbert_full", "data.path=x", "data.fold=1")
    found = comparable(read_members(folder))
    assert sorted(member.folder.name for member in found) == ["again", "fold", "one", "three"], "two is there already"
    over = overview(found)
    assert over.keys == ["data.epochs"]
    assert [row[:2] for row in over.rows] == [["2", "2"], ["2", "1"], ["8", "1"]]
    assert over.best is None, "a fold has other rows"


@pytest.mark.parametrize("rows", ["a", "b"])
def test_the_best_is_one_of_runs_on_the_same_rows(rows: str, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("one", "freeze=head")
    sweep = make("two", "freeze=none", rows=rows).parent
    summarise(sweep)
    said = {
        "a": ["Best on validation: freeze=head", "With one seed each, what differs may be chance"],
        "b": ["No run is named the best: their scores are not of the same validation rows."],
    }
    for text in (capsys.readouterr().out, *((sweep / f"summary.{kind}").read_text() for kind in ("html", "md"))):
        assert all(line in text for line in said[rows])
        assert ("Best on validation" in text) == (rows == "a")


@pytest.mark.parametrize(("places", "same"), [(("x", "x"), True), (("x", "y"), False), (("x", None), True)])
def test_rows_of_other_places_are_not_the_same(places: tuple[str, str | None], same: bool, make: Make) -> None:
    """However many there are of each label; runs of earlier versions do not tell the places."""
    for size, own in zip((100, 200), places, strict=True):
        folder = make(str(size), f"data.train_size={size}")
        data = files.read_json(folder / "data.json")
        data["splits"]["validation"] |= {"places": own} if own else {}
        files.write_json(folder / "data.json", data)
    over = overview(read_members(folder.parent))
    assert (over.best is not None) == same
    assert ("No run is named the best: their scores are not of the same validation rows." in over.findings) != same


def changed(run: Path, split: str, **figures: object) -> Path:
    """A run whose rows of a split are others."""
    data = files.read_json(run / "data.json")
    data["splits"].setdefault(split, {"rows": 9, "labels": {"a": 9}}).update(figures)
    files.write_json(run / "data.json", data)
    return run


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("other", [{"labels": {"a": 8, "b": 1}}, {"places": "y"}], ids=str)
def test_runs_on_other_rows_are_no_repetitions(split: str, other: dict[str, object], make: Make) -> None:
    """As those of further seeds after the data has grown, or of a command that was repeated then."""
    for freeze in ("head", "none"):
        for seed in (1, 2):
            run = make(f"{freeze}-{seed}", f"freeze={freeze}", f"seed={seed}")
            for own in ("validation", "test"):
                changed(run, own, places="x")
    over = overview(read_members(run.parent))
    assert over.best is not None
    changed(run, split, **other)
    over = overview(read_members(run.parent))
    assert over.best is None
    assert over.findings == [
        "Not all runs of freeze=none are of the same validation and test rows, as where the data has changed between "
        "them: their mean and deviation are not over seeds alone.",
        "No run is named the best: runs of one line are of different rows.",
    ]
    over = overview([member for member in read_members(run.parent) if member.settings["freeze"] == "none"])
    assert [line.partition(" are ")[0] for line in over.findings] == ["Not all runs"]
    changed(run.parent / "none-1", split, places=None)
    over = overview(read_members(run.parent))
    assert (over.best is None) == ("labels" in other), "a run of an earlier version does not tell its places"


def known(run: Path, **figures: object) -> Path:
    """A run with further metrics."""
    files.write_json(run / "metrics.json", {**files.read_json(run / "metrics.json"), **figures})
    return run


@pytest.mark.parametrize(
    ("f1", "said"),
    [
        (0.6, "TF-IDF, logistic regression has test f1 0.600 on these rows; freeze=head 0.500."),
        (0.5, "TF-IDF, logistic regression has test f1 0.500 on these rows; freeze=head 0.500."),
        (0.4, "For comparison: TF-IDF, logistic regression 0.400 (test f1)."),
    ],
)
def test_the_best_runs_are_held_against_the_best_baseline(f1: float, said: str, make: Make) -> None:
    beside = {"before training": {"f1": 0.9}, "majority class": {"f1": 0.1}, "TF-IDF, logistic regression": {"f1": f1}}
    for seed in (1, 2):
        run = known(make(f"head-{seed}", "freeze=head", f"seed={seed}"), baselines={"test": beside})
    other = make("none", "freeze=none", "seed=1")
    assert said in overview(read_members(run.parent)).findings
    alone = overview([member for member in read_members(run.parent) if member.folder != other])
    assert alone.findings == [said.replace("freeze=head", "these runs")]
    known(run, baselines={})
    assert not any("TF-IDF" in line for line in overview(read_members(run.parent)).findings), "one run has none"


def test_the_table_tells_how_many_parameters_were_trained_where_it_is_not_the_same(make: Make) -> None:
    folder = known(make("head", "freeze=head"), trainable=150_150).parent
    known(make("none", "freeze=none"), trainable=22_000_000)
    summarise(folder)
    over = overview(read_members(folder))
    assert over.header[-2:] == ["trainable", "seconds"]
    assert [row[-2] for row in over.rows] == ["150,150", "22,000,000"]
    assert "150,150" in (folder / "summary.tex").read_text()
    assert [row["trainable"] for row in csv.DictReader((folder / "runs.csv").open())] == ["150150", "22000000"]
    known(folder / "none", trainable=150_150)
    assert "trainable" not in overview(read_members(folder)).header


def test_runs_of_several_commands_on_other_rows_are_not_the_same_run(make: Make) -> None:
    one, _, two = (make(name, "seed=1") for name in ("a", "again", "other"))
    changed(two, "validation", rows=12)
    found = comparable(read_members(one.parent))
    assert [member.folder for member in found] == [one, two]
    assert overview(found).findings[0].startswith("Not all runs are of the same validation and test rows")


def test_settings_are_compared_once_all_their_folds_are_there(make: Make) -> None:
    make("one", "freeze=head", "data.fold=1")
    make("two", "freeze=head", "data.fold=2")
    folder = make("three", "freeze=none", "data.fold=1").parent
    over = overview(read_members(folder))
    said = "No run is named the best: not all settings have as many finished runs of each fold."
    assert over.findings == [said]
    make("four", "freeze=none", "data.fold=2")
    over = overview(read_members(folder))
    assert over.about.startswith("Runs that differ only in seed or fold share a line")
    assert over.best is not None
    settings = f"freeze={over.best.settings['freeze']}"
    assert command_of(over.best) == f"python train.py {settings} data.test_size=0", "on all rows"
    make("five", "freeze=none", "data.fold=2", "seed=2")
    over = overview(read_members(folder))
    assert over.findings == [said], "a seed of one fold is missing"
    assert "mean ± standard deviation over folds; each fold counts with its mean over seeds." in over.about


def fold_of(make: Make, fold: int, numbers: range, names: tuple[str, ...] = ("no", "yes"), total: int = 12) -> Path:
    """A run of one of three folds: the numbers of its test rows, the labels it knows, and the rows of its data."""
    run = make(f"fold-{fold}", "data.folds=3", f"data.fold={fold}")
    files.write_json(run / "labels.json", LabelSet("sequence", names, (4,) * len(names), rows=8).to_dict())
    rows = [
        {"place": f"rows.csv:{i}", "text": f"text {i}", "label": names[i % len(names)], "predicted": "no",
         "probabilities": dict.fromkeys(names, 1 / len(names))}
        for i in numbers
    ]  # fmt: skip
    files.write_jsonl(run / "predictions/test.jsonl", rows)
    counts = {"train": total - len(rows) - 2, "validation": 2, "test": len(rows)}
    splits = {split: {"rows": count, "labels": dict.fromkeys(names, count)} for split, count in counts.items()}
    files.write_json(run / "data.json", {"files": {"all": ["a/rows.csv"]}, "splits": splits})
    return run


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"numbers": range(8, 12), "names": ("maybe", "no", "yes")}, "the labels differ: maybe in one only"),
        ({"numbers": range(7, 11), "total": 13}, "1 row tested by several of them"),
        ({"numbers": range(9, 13), "total": 13}, "of 12 or 13 rows 12 tested"),
        ({"numbers": range(8, 12)}, ""),
    ],
    ids=["labels", "overlap", "gap", "the same"],
)
def test_folds_of_data_that_has_changed_are_not_put_together(
    odd: dict[str, Any], said: str, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the csv was saved while they ran; the rest of the summary stands, and tells which run to remove."""
    for fold in (1, 2):
        sweep = fold_of(make, fold, range(4 * fold - 4, 4 * fold)).parent
    last = fold_of(make, 3, **odd)
    (sweep / "label_errors.csv").write_text("of an earlier summary")
    assert summarise(sweep) == []
    shown = capsys.readouterr().out
    assert "3 runs of sweep" in shown
    assert (f": {said}. Remove {last}, and repeat the command." in shown) == bool(said)
    assert (sweep / "out_of_fold.jsonl").exists() == (not said)
    assert (sweep / "label_errors.csv").exists() == (not said)
    assert ("Nothing out of fold" in (sweep / "summary.html").read_text()) == bool(said)


def test_folds_that_began_before_the_data_was_saved_are_named(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.csv"
    data.touch()
    for fold in (1, 2, 3):
        run = fold_of(make, fold, range(4 * fold - 4, 4 * fold), ("no", "yes", "maybe") if fold == 3 else ("no", "yes"))
        config = runs.load_config(run)
        config.data.path = str(data)
        runs.save_config(run, config)
        os.utime(run / "data.json", (fold, fold))
    os.utime(data, (2.5, 2.5))
    summarise(run.parent)
    assert f"Remove {run.parent}/fold-1, {run.parent}/fold-2, and repeat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "single", "expected"),
    [("data.test_size=9", True, " data.test_size=9"), ("data.folds=2", False, " data.folds=2")],
    ids=["as the user says", "splits stand apart"],
)
def test_after_folds_a_test_is_left_alone_where_it_is_no_loss(
    typed: str, single: bool, expected: str, make: Make
) -> None:
    for fold in (1, 2):
        folder = make(str(fold), typed, f"data.fold={fold}", single=single).parent
    best = overview(read_members(folder)).best
    assert best is not None
    assert command_of(best) == f"python train.py{expected}"


def test_runs_of_one_fold_are_done_again_on_it(make: Make) -> None:
    make("one", "data.fold=2", "freeze=head", "seed=1")
    over = overview(read_members(make("two", "data.fold=2", "freeze=none", "seed=1").parent))
    assert over.about.startswith("Runs that differ only in seed share a line")
    assert over.best is not None
    assert command_of(over.best) == "python train.py data.fold=2 freeze=head seed=1"


@pytest.mark.parametrize(
    ("values", "said"),
    [([], "–"), ([0.5], "0.5000"), ([0.5, 0.7], "0.6000 ± 0.1414"), ([0.5, 0.7, 0.9], "0.7000 ± 0.2000")],
)
def test_scores_over_seeds_are_shown_with_their_spread(values: list[float], said: str) -> None:
    assert spread(values) == said


def test_a_figure_that_a_run_lacks_has_no_mean(make: Make) -> None:
    """As F1 where a fold has no entity: a mean would be of fewer runs than the line says."""
    for freeze in ("head", "none"):
        folders = [make(f"{freeze}-{fold}", f"freeze={freeze}", f"data.fold={fold}") for fold in (1, 2)]
    own = folders[0] / "metrics.json"
    files.write_json(own, {**files.read_json(own), "test/f1": None})
    over = overview(read_members(folders[0].parent))
    assert over.header[3:5] == ["test accuracy", "test f1"]
    assert [row[4] for row in over.rows] == ["0.5000 ± 0.0000", "–"]


def test_repetitions_of_one_setting_have_no_rivals(make: Make) -> None:
    make("one", "seed=1")
    over = overview(read_members(make("two", "seed=2").parent))
    assert over.header[:2] == ["settings", "runs"]
    assert over.rows[0][:3] == ["all", "2", "0.5000 ± 0.0000"]
    assert over.findings == []


def test_where_no_run_has_finished_there_is_no_best(make: Make) -> None:
    folder = make("one")
    (folder / "metrics.json").unlink()
    over = overview(read_members(folder.parent))
    assert (over.best, over.rows, over.findings) == (None, [], [])
    summarise(folder.parent)
    assert (folder.parent / "summary.md").read_text().startswith("# 1 run of sweep\n")


def test_what_became_of_every_run_is_listed(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make("a", "freeze=head").parent
    for name, choice in (("pruned", "none"), ("stopped", "bitfit")):
        folder = make(name, f"freeze={choice}", "seed=3")
        (folder / "metrics.json").unlink()
    (sweep / "pruned" / runs.PRUNED).touch()
    files.write_json(sweep / "failed" / runs.FAILURE, {"overrides": ["freeze=x"], "error": "wrong", "traceback": "T"})
    files.write_json(sweep / "mistaken" / runs.FAILURE, {"overrides": ["freeze=y"], "error": "mistaken"})
    (sweep / "out_of_fold.jsonl").write_text("of an earlier summary")
    assert [member.folder.name for member in summarise(sweep)] == ["failed", "mistaken", "stopped"]
    assert not (sweep / "out_of_fold.jsonl").exists()
    said = capsys.readouterr().out.splitlines()
    assert {"failed: wrong", "failed: mistaken", "pruned: pruned", "stopped: stopped"} < set(said)
    assert "Not finished: 3; the same command tries them again." in said, "what was pruned is not tried again"
    assert not any("Best on validation" in line for line in said), "there is one alone"
    table = list(csv.DictReader((sweep / "runs.csv").open()))
    assert [(row["run"], row["freeze"], row["seed"], row["status"], row["test/f1"]) for row in table] == [
        ("a", "head", "", "finished", "0.5"),
        ("failed", "x", "", "failed", ""),
        ("mistaken", "y", "", "failed", ""),
        ("pruned", "none", "3", "pruned", ""),
        ("stopped", "bitfit", "3", "stopped", ""),
    ]


def test_the_table_has_numbers_by_size(make: Make) -> None:
    rates = ["0.0001", "1e-05", "0.001", "2e-05"]
    folders = [make(f"lr-{rate}", f"optimizer.lr={rate}") for rate in rates]
    rows = overview(read_members(folders[0].parent)).rows
    assert [row[0] for row in rows] == ["1e-05", "2e-05", "0.0001", "0.001"]


def test_scores_of_different_kinds_are_not_compared(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("one", "monitor=val/f1_weighted", "freeze=head")
    sweep = make("two", "freeze=none").parent
    summarise(sweep)
    for text in (capsys.readouterr().out, *((sweep / f"summary.{kind}").read_text() for kind in ("html", "md"))):
        assert "No run is named the best: their checkpoints were picked by different scores, val/f1, val/f1_w" in text
        assert "Best on validation" not in text
        assert "best val/f1" not in text
        assert "val/f1_weighted 0.5000" in " ".join(text.split())
    table = list(csv.DictReader((sweep / "runs.csv").open()))
    assert [row["scored by"] for row in table] == ["val/f1_weighted", "val/f1"]
    assert "<svg" not in (sweep / "summary.html").read_text()


@pytest.mark.parametrize("mendable", [True, False])
def test_what_a_setting_makes_fail_is_not_said_to_be_worth_another_try(
    mendable: bool, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make("one", "freeze=head").parent
    failure = {"overrides": ["freeze=none"], "error": "wrong", **({} if mendable else {"traceback": "Traceback"})}
    files.write_json(sweep / "two" / runs.FAILURE, failure)
    summarise(sweep)
    told = "Not finished: 1." if mendable else "Not finished: 1; the same command tries them again."
    assert told in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["split=validation"], "split is for two runs"),
        (["output=mine.html", "paper=true"], "output is for several folders"),
        (["output=metrics.json"], "output=metrics.json is not a file name that ends in .html"),
    ],
)
def test_what_a_report_of_a_multirun_has_no_use_for_is_refused(
    settings: list[str], said: str, make: Make, script: Run
) -> None:
    done = script("report.py", f"runs={make('one').parent}", *settings, ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_a_table_of_published_figures_is_of_a_multirun(make: Make, script: Run) -> None:
    pair = f"runs={make('one')},{make('two')}"
    done = script("report.py", pair, "paper=true", ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "paper" in done.stderr
    assert "a single multirun" in done.stderr


def test_published_figures_and_a_report_go_together(make: Make, script: Run) -> None:
    name = "experiment=emotion_distilbert_last_layer"
    folder = make("one", name, "logger=wandb_offline").parent
    script("report.py", f"runs={folder}", "paper=true", "wandb=dry_run")
    assert (folder / "paper.html").is_file()
    assert (folder / "wandb_report.json").is_file()


def test_a_cell_of_markdown_is_one_line() -> None:
    table = markdown_table(["run", "error"], [["a|b", "first\nsecond\r\nthird"], ["", "x"]])
    assert table.splitlines() == [
        "| run | error |", "| --- | ---: |", "| a\\|b | first second third |", "|  | x |",
    ]  # fmt: skip


def test_a_table_for_latex_escapes_what_latex_would_read_and_has_its_best_cell_bold() -> None:
    rows = [["all_but_last_n", "0.93 ± 0.01"], ["C:\\{x}", "50 %"], ["1e-5, p ≤ 0.002", "-0.069 to 0.339"]]
    assert latex_table("2 runs", ["freeze", "test f1_macro"], rows, best=(0, 1)).splitlines() == [
        "% 2 runs",
        r"% Needs \usepackage{booktabs}.",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"freeze & test f1\_macro \\",
        r"\midrule",
        r"all\_but\_last\_n & \textbf{0.93 $\pm$ 0.01} \\",
        r"C:\textbackslash{}\{x\} & 50 \% \\",
        r"1e-5, p $\leq$ 0.002 & $-$0.069 to 0.339 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_near_duplicates_of_many_alike_are_at_least_so_many(tmp_path: Path, encoders: Callable[[str], Path]) -> None:
    """Of 30 texts that are all alike few pairs are compared; of two texts, all there are."""
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    for alike, said in ((30, "At least "), (2, "")):
        others = [f"{i} fish {i * i} fowl {i + 1} flesh {i * 7}" for i in range(20)]
        rows = [f"{words} {i}" for i in range(alike)] + others
        (tmp_path / "rows.txt").write_text("".join(f"{row};{'ab'[i % 2]}\n" for i, row in enumerate(rows)))
        settings = [f"model.name={encoders('bert')}", "data=txt", f"data.path={tmp_path}/rows.txt"]
        explore(configured(*settings, f"output={tmp_path}/out", verb="explore"), settings)
        near = files.read_json(tmp_path / "out/data.json")["near"]
        assert near["pairs"] == 1 if alike == 2 else near["pairs"] < alike * (alike - 1) / 2
        page = (tmp_path / "out/data.html").read_text()
        assert f"<p>{said}{alike} different texts have a near duplicate: {said.lower()}{near['pairs']} pairs" in page


def test_a_setting_that_was_left_out_tells_runs_apart(make: Make) -> None:
    folder = make("one", "optimizer.lr=1").parent
    make("two", "optimizer.lr=2", "~optimizer.class.fused")
    over = overview(comparable(read_members(folder)))
    assert over.keys == ["optimizer.lr", "optimizer.class.fused"]
    assert [row[:2] for row in over.rows] == [["1", "true"], ["2", "–"]]


@pytest.mark.parametrize("changed", ["data.fold=1", "data.truncation=middle"])
def test_runs_of_earlier_versions_count_as_done(changed: str, make: Make) -> None:
    run, config = make("one"), configured()
    (run / "report.html").touch()
    OmegaConf.set_struct(config, False)
    for key in runs.ADDED:
        group, _, name = key.rpartition(".")
        del (config[group] if group else config)[name]
    runs.save_config(run, config)
    assert not set_aside(run, configured())
    assert not set_aside(run, configured("data.folds=10"))
    check(plain(runs.load_config(run)))
    assert set_aside(run, configured(changed))


@pytest.mark.parametrize(("freeze", "n"), [("lora", None), ("all_but_last_n", 1), ("head", "lacking")])
def test_adapters_of_earlier_versions_are_in_all_layers(freeze: str, n: object, tmp_path: Path) -> None:
    config = configured(f"freeze={freeze}")
    if n is None:
        OmegaConf.set_struct(config, False)
        del config.freeze.n
    runs.save_config(tmp_path, config)
    assert runs.load_config(tmp_path).freeze.get("n", "lacking") == n
    assert runs.load_config(tmp_path).freeze == configured(f"freeze={freeze}").freeze


def test_a_run_of_when_all_devices_were_taken_counts_as_done(make: Make) -> None:
    """In a multirun there was only one."""
    run = make("one", "trainer.devices=auto")
    (run / "report.html").touch()
    assert not set_aside(run, configured())
    assert set_aside(run, configured("trainer.devices=2"))


def test_a_precision_that_was_left_to_the_machine_is_that_of_where_the_run_began(make: Make) -> None:
    run = make("one", "trainer.precision=bf16-mixed")
    (run / "report.html").touch()
    assert not set_aside(run, configured("trainer.precision=auto"))
    assert set_aside(run, configured("trainer.precision=16-mixed"))


def set_aside(run: Path, config: DictConfig) -> bool:
    """Whether a finished run does not count as done for a config."""
    return begin(config, run) is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.progress_bar=false", False),
        ("trainer.checkpoint_every=7", False),
        ("data.num_workers=2", False),
        ("trainer.log_every=3", True),
        ("data.eval_batch_size=8", True),
        ("logger=wandb_offline", True),
        ("seed=7", True),
    ],
)
def test_a_finished_run_counts_unless_its_results_would_differ(override: str, expected: bool, make: Make) -> None:
    run = make("one")
    (run / "report.html").touch()
    assert set_aside(run, configured(override)) is expected


def test_a_correction_of_what_was_published_reaches_a_finished_run(make: Make) -> None:
    run = make("one", "experiment=emotion_distilbert_last_layer")
    (run / "report.html").touch()
    config = configured("experiment=emotion_distilbert_last_layer")
    config.expected[0].source = "the second edition"
    assert not set_aside(run, config)
    assert runs.load_config(run).expected[0].source == "the second edition"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_better_is_the_darker(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[np.ndarray] = []
    monkeypatch.setattr(sweep_plots, "matrix", lambda values, shares, *_: given.append(shares) or "")
    points = [({"a": a, "b": b}, float(a) + float(b), 0.0) for a in "12" for b in "12"]
    sweep_plots.pictures(points, ["a", "b"], "val/score", mode)
    assert given[0].argmax() == (0 if mode == "min" else 3)
    assert 0 < given[0].min() < given[0].max() == pytest.approx(1)


@pytest.mark.parametrize("values", [["1e-5", "3e-4", "1e-4"], ["none", "head", "lora"]], ids=["numbers", "names"])
def test_the_picture_of_a_setting_shows_mean_and_deviation(values: list[str]) -> None:
    points = [({"a": value}, 0.5 + 0.1 * i, 0.05 * i) for i, value in enumerate(values)]
    with_deviation, without = (
        sweep_plots.by_value([(settings, score, own * factor) for settings, score, own in points], "a", "val/f1")
        for factor in (1, 0)
    )
    assert with_deviation != without
    assert all(f">{value}<" in with_deviation for value in values)


def test_headers_are_no_markup() -> None:
    assert "val/f1/[/b]" in summary.table("[red]", ["", "val/f1/[/b]"], [["a", "1"]])


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["accuracy", "f1", "f1_macro", "f1_weighted", "precision_macro"], ["f1 (macro)", "f1_weighted"]),
        (["f1", "f1_micro", "precision_micro", "f1_macro"], ["f1 (micro)", "f1_macro"]),
        (["f1", "precision", "recall", "f1_macro"], ["f1", "f1_macro"]),
    ],
)
def test_one_figure_has_one_row(names: list[str], shown: list[str]) -> None:
    metrics = {**{f"test/{name}": 0.5 for name in names}, "baselines": {}, "intervals": {}}
    _, rows = summary.headline_rows(metrics, ["test"])
    assert [row[0] for row in rows if row[0].startswith("f1")] == shown

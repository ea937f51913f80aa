"""The summary of a multirun: what was swept, what it gave over seeds, the best, and what failed."""

import csv
import json
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw import runs
from thaw.errors import UserError
from thaw.reporting import summary, sweep_plots
from thaw.reporting.run_page import render
from thaw.reporting.summary import number

SHOWN = ("accuracy", "f1", "f1_weighted")  # figures in the table; runs.csv has them all
LEVEL = 0.05  # from which probability on a difference is put down to chance
NOT_SWEPT = ("seed",)  # runs that differ in this alone are repetitions of one another
CHOSEN = "chosen"  # in the config of a W&B run: the files of config groups, which have no value of their own


@dataclass
class Member:
    """One run of a multirun.

    Args:
        folder: of the run.
        settings: its overrides, key -> value.
        status: finished, failed, pruned or stopped.
        score: the best monitored validation score.
        figures: of the test rows, or of validation where there is no test: ``test/f1`` -> value.
        seconds: of training.
        error: why it failed.
        mendable: whether the error is the user's to mend, so that nothing is gained by trying the same again.
        rows: a key of the validation rows, which the score is of.
    """

    folder: Path
    settings: dict[str, str]
    status: str
    score: float | None = None
    figures: dict[str, float] | None = None
    seconds: float | None = None
    error: str = ""
    mendable: bool = False
    rows: str | None = None


@dataclass
class Group:
    """Finished runs that differ in their seed alone."""

    settings: dict[str, str]
    members: list[Member]

    def scores(self) -> list[float]:
        return [member.score for member in self.members if member.score is not None]

    def figure(self, name: str) -> list[float]:
        return [member.figures[name] for member in self.members if member.figures and name in member.figures]


@dataclass
class Overview:
    """A multirun over its seeds.

    Args:
        keys: the swept settings, the seed apart.
        monitor: the score that picks the best.
        mode: whether more (``max``) or less (``min``) of it is better.
        groups: of finished runs, a row of the table for each.
        best: of the groups; None where their scores are of different rows.
        header: of the table.
        rows: of the table.
        about: how to read it.
        findings: which is the best, and what may be as good, in sentences.
    """

    keys: list[str]
    monitor: str
    mode: str
    groups: list[Group]
    best: Group | None
    header: list[str]
    rows: list[list[str]]
    about: str
    findings: list[str]


def read_members(folder: Path) -> list[Member]:
    """The runs of a multirun, in the order in which their folders are named.

    Raises:
        UserError: when the folder holds none.
    """
    found = sorted({path.parent for name in ("config.yaml", runs.FAILURE) for path in folder.glob(f"*/{name}")})
    if not found:
        raise UserError(f"{runs.display(folder)}: no runs", "Give the folder of a multirun: outputs/multirun/...")
    return [_member(path) for path in found]


def _member(folder: Path) -> Member:
    if (folder / runs.FAILURE).is_file():
        failure = runs.read_json(folder / runs.FAILURE)
        return Member(
            folder,
            settings_of(failure["overrides"]),
            "failed",
            error=failure["error"],
            mendable="traceback" not in failure,
        )
    settings = overridden(folder)
    if not (folder / "metrics.json").is_file():
        return Member(folder, settings, "pruned" if (folder / runs.PRUNED).is_file() else "stopped")
    metrics = runs.read_json(folder / "metrics.json")
    split = runs.known_splits(folder)[-1]
    names = [f"{split}/{name}" for name in summary.headline_names(metrics, [split])]
    figures = {name: metrics[name] for name in names if metrics[name] is not None}
    validation = runs.read_json(folder / "data.json")["splits"]["validation"]
    # Not the fingerprint: whether to clean the texts of the same rows may be what is swept.
    rows = json.dumps([validation["rows"], validation["labels"], settings.get("data.split_seed")])
    score, seconds = metrics["best"]["score"], metrics["seconds"]["train"]
    return Member(folder, settings, "finished", score, figures, seconds, rows=rows)


def overridden(run: Path) -> dict[str, str]:
    """The overrides of a run that has begun, key -> value."""
    return settings_of(runs.read_json(run / "environment.json").get("overrides", []))


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides as key -> value."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def picks_a_file(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a setting names a file of a config group, as ``freeze=head`` does: the config has no such value."""
    return "." not in key and isinstance(config.get(key, {}), Mapping)


def swept_keys(members: Sequence[Member]) -> list[str]:
    """The settings that are not the same in all runs, the seed apart."""
    keys = dict.fromkeys(key for member in members for key in member.settings if key not in NOT_SWEPT)
    return [key for key in keys if len({member.settings.get(key) for member in members}) > 1]


def grouped(members: Sequence[Member], keys: Sequence[str]) -> list[Group]:
    """Finished runs, those together that differ in their seed alone."""
    groups: dict[tuple[str, ...], Group] = {}
    for member in members:
        if member.status == "finished":
            settings = {key: member.settings.get(key, "–") for key in keys}
            groups.setdefault(tuple(settings.values()), Group(settings, [])).members.append(member)
    return list(groups.values())


def best_of(groups: Sequence[Group], mode: str) -> Group | None:
    """The group with the best mean validation score; the test rows have no say."""
    scored = [group for group in groups if group.scores()]
    pick = max if mode == "max" else min
    return pick(scored, key=lambda group: statistics.mean(group.scores())) if scored else None


def rivals(groups: Sequence[Group], best: Group) -> str:
    """Which groups may be as good as the best for all that their seeds tell, in sentences.

    By Welch's t-test of each against the best, which knows nothing of the chance that lies in the rows. The best is the
    luckiest of all, so that one of many would seem worse by chance: Holm's correction (1979) allows for that.
    """
    from scipy import stats

    others = [group for group in groups if group is not best and group.scores()]
    if not others:
        return ""
    if all(len(group.scores()) == 1 for group in (best, *others)):
        return "With one seed each, what differs may be chance: repeat with seed=1,2,3."
    tested = [group for group in others if testable(best, group)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that hardly vary
        found = [float(stats.ttest_ind(best.scores(), group.scores(), equal_var=False).pvalue) for group in tested]
    close = [group for group, p in zip(tested, holm(found), strict=True) if p >= LEVEL]
    said = []
    how = "Welch's t-test over seeds with Holm's correction, p"
    if close:
        said.append(f"On these validation rows it cannot be told apart from {_named(close)} ({how} ≥ {LEVEL}).")
    elif tested:
        each = "each of the others" + " that could be tested" * (len(tested) < len(others))
        said.append(f"On these validation rows {each} is worse by more than chance ({how} < {LEVEL}).")
    if untested := [group for group in others if group not in tested]:
        said.append(f"Not tested: {_named(untested)}. A test takes two seeds of each, and scores that vary over them.")
    return " ".join(said)


def testable(one: Group, other: Group) -> bool:
    """Whether a t-test can tell anything: where neither score varies it would take any difference for certain."""
    scores = one.scores(), other.scores()
    return min(map(len, scores)) > 1 and any(len(set(own)) > 1 for own in scores)


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected for their number (Holm 1979)."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = corrected[i] = min(1.0, max(largest, (len(values) - rank) * values[i]))
    return corrected


def _named(groups: Sequence[Group]) -> str:
    return summary.listed([described(group) for group in groups])


def described(group: Group) -> str:
    """The settings of a group as they are typed."""
    return " ".join(f"{key}={value}" for key, value in group.settings.items())


def spread(values: Sequence[float]) -> str:
    """``0.9323 ± 0.0035``: the mean, and the standard deviation of several."""
    if not values:
        return "–"
    mean = number(statistics.mean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if len(values) > 1 else mean


def overview(members: Sequence[Member]) -> Overview:
    """What a multirun gave over seeds, as a table."""
    keys = swept_keys(members)
    groups = grouped(members, keys)
    monitor, mode = _monitored(members)
    compared = len({member.rows for group in groups for member in group.members}) == 1
    best = best_of(groups, mode) if compared else None
    findings = []
    if best and keys:
        findings = [line for line in (f"Best on validation: {described(best)}", rivals(groups, best)) if line]
    elif len(groups) > 1 and not compared:
        findings = ["No run is named the best: their scores are not of the same validation rows."]
    known = [f"{split}/{name}" for split in ("test", "validation") for name in SHOWN]
    figures = [name for name in known if any(group.figure(name) for group in groups)]
    shown = [name.replace("/", " ") for name in figures]
    header = [*(keys or ["settings"]), "runs", f"best {monitor}", *shown, "seconds"]
    rows = [
        [
            *(group.settings.values() or ["all"]),
            str(len(group.members)),
            spread(group.scores()),
            *(spread(group.figure(name)) for name in figures),
            f"{statistics.mean(member.seconds or 0 for member in group.members):.1f}",
        ]
        for group in groups
    ]
    about = "Runs that differ only in seed share a line: mean ± standard deviation."
    optimistic = any(name.startswith("validation/") for name in figures)
    if best:
        about += " The best is picked by its validation score" + ("." if optimistic else "; the test rows have no say.")
    if optimistic:
        about += " Without a test split the metrics are of the rows that picked the checkpoint: they are optimistic."
    return Overview(keys, monitor, mode, groups, best, header, rows, about, findings)


def summarise(folder: Path) -> list[Member]:
    """Write ``summary.html``, ``summary.md`` and ``runs.csv`` into the folder of a multirun, and show the table.

    Returns:
        The runs that the same command would try again: those that failed or were stopped.
    """
    members = read_members(folder)
    over = overview(members)
    keys, groups, best = over.keys, over.groups, over.best
    title = f"{len(members)} run{'s' * (len(members) > 1)} of {folder.name}"
    unfinished = [member for member in members if member.status != "finished"]
    context = {
        "title": title,
        "command": runs.read_json(best.members[0].folder / "environment.json")["command"] if best else "",
        "monitor": over.monitor,
        "about": over.about,
        "keys": keys,
        "header": over.header,
        "rows": over.rows,
        "best": groups.index(best) if best else None,
        "findings": over.findings,
        "pictures": sweep_plots.pictures(
            [(group.settings, statistics.mean(group.scores())) for group in groups if group.scores()],
            keys,
            over.monitor,
            over.mode,
        ),
        "members": members,
        "unfinished": unfinished,
    }
    with runs.atomic_write(folder / "summary.html") as file:
        file.write(render("sweep.html", context))
    with runs.atomic_write(folder / "summary.md") as file:
        file.write(_markdown(title, over, unfinished))
    _write_csv(folder / "runs.csv", members)
    print(summary.table(title, over.header, over.rows))
    for line in over.findings:
        print(line)
    for line in dict.fromkeys(f"{member.status}: {member.error or member.folder.name}" for member in unfinished):
        print(line)
    waiting = [member for member in unfinished if member.status != "pruned"]
    if waiting:
        again = "" if all(member.mendable for member in waiting) else "; the same command tries them again"
        print(f"Not finished: {len(waiting)}{again}.")
    print(f"\nSummary  {runs.display(folder / 'summary.html')}")
    if command := runs.sync_command(folder):
        print(f"Sync     {command}")
    return waiting


def _monitored(members: Sequence[Member]) -> tuple[str, str]:
    """What picks the best, as most runs have it."""
    configs = [runs.load_config(member.folder) for member in members if member.status == "finished"]
    pairs = [(str(config.monitor), str(config.mode)) for config in configs]
    return max(pairs, key=pairs.count) if pairs else ("score", "max")


def _markdown(title: str, over: Overview, unfinished: Sequence[Member]) -> str:
    lines = [f"- {member.status}: `{member.folder.name}` {member.error}\n" for member in unfinished]
    table, said = summary.markdown_table(over.header, over.rows), "".join(f"{line}\n\n" for line in over.findings)
    return f"# {title}\n\n{table}\n\n{said}{''.join(lines)}"


def _write_csv(path: Path, members: Sequence[Member]) -> None:
    keys = list(dict.fromkeys(key for member in members for key in member.settings))
    figures = list(dict.fromkeys(name for member in members for name in member.figures or {}))
    rows: list[Mapping[str, Any]] = [
        {
            "run": member.folder.name, **member.settings, "status": member.status, "score": member.score,
            **(member.figures or {}), "seconds": member.seconds, "error": member.error,
        }
        for member in members
    ]  # fmt: skip
    columns = ["run", *keys, "status", "score", *figures, "seconds", "error"]
    with runs.atomic_write(path) as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

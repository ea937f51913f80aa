"""The summary of a multirun, or of several: what was swept, what it gave over seeds, the best, and what failed."""

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw import files, runs
from thaw.errors import counted
from thaw.reporting import advice, folds, summary, sweep_plots
from thaw.reporting.html import write_html
from thaw.reporting.members import (
    FOLD,
    Group,
    Member,
    comparable,
    described,
    grouped,
    monitored,
    read_members,
    swept_keys,
)
from thaw.reporting.rivals import best_of, rivals
from thaw.reporting.summary import number

OUT_OF_FOLD = "Out of fold: every row, predicted by a run that did not train on it"
SHOWN = ("accuracy", "f1", "f1_weighted")  # figures in the table; runs.csv has them all


@dataclass
class Overview:
    """Runs over their seeds.

    Args:
        keys: the swept settings, seed and fold apart.
        monitor: the score that picks the best; of several that of most runs.
        mode: whether more (``max``) or less (``min``) of it is better.
        groups: of finished runs, a row of the table for each.
        one_score: whether all runs were picked by the same, so that theirs can be compared.
        best: of the groups; None where their scores are not the same, or of different rows.
        header: of the table.
        rows: of the table.
        about: how to read it.
        findings: which is the best, and what may be as good, in sentences.
    """

    keys: list[str]
    monitor: str
    mode: str
    one_score: bool
    groups: list[Group]
    best: Group | None
    header: list[str]
    rows: list[list[str]]
    about: str
    findings: list[str]


def command_of(best: Group) -> str:
    """The command that does the best run again; of several folds, one with these settings on all rows."""
    command = str(files.read_json(best.members[0].folder / "environment.json")["command"])
    return re.sub(rf" {FOLD}=\d+", "", command) if len(best.by_fold()) > 1 else command


def deviation(values: Sequence[float]) -> float:
    """The standard deviation; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def spread(values: Sequence[float]) -> str:
    """``0.9323 ± 0.0035``: the mean, and the standard deviation of several."""
    if not values:
        return "–"
    mean = number(statistics.mean(values))
    return f"{mean} ± {number(deviation(values))}" if len(values) > 1 else mean


def by_settings(groups: Sequence[Group], keys: Sequence[str]) -> list[Group]:
    """The groups in the order of their settings: numbers by size; by folder 0.0001 comes before 1e-5."""
    values = {key: sweep_plots.in_order([group.settings[key] for group in groups]) for key in keys}
    return sorted(groups, key=lambda group: [values[key].index(group.settings[key]) for key in keys])


def overview(members: Sequence[Member]) -> Overview:
    """What a multirun gave over seeds, as a table."""
    keys = swept_keys(members)
    groups = by_settings(grouped(members, keys), keys)
    monitor, mode = monitored(members)
    scores = sorted({member.monitor for group in groups for member in group.members})
    one_score = len(scores) < 2
    compared = one_score and len({frozenset(member.rows for member in group.members) for group in groups}) == 1
    best = best_of(groups, mode) if compared else None
    findings = []
    if best and len(groups) > 1:
        findings = [line for line in (f"Best on validation: {described(best)}", rivals(groups, best)) if line]
    elif not one_score:
        said = f"No run is named the best: their checkpoints were picked by different scores, {advice.listed(scores)}."
        findings = [f"{said} To compare them give all the same, monitor={monitor} say."]
    elif len({frozenset(group.by_fold()) for group in groups}) > 1:
        findings = ["No run is named the best: not all settings have finished all folds."]
    elif len(groups) > 1 and not compared:
        findings = ["No run is named the best: their scores are not of the same validation rows."]
    repeated = "seed or fold" if any(len(group.by_fold()) > 1 for group in groups) else "seed"
    known = [f"{split}/{name}" for split in ("test", "validation") for name in SHOWN]
    figures = [name for name in known if any(group.figure(name) for group in groups)]
    shown = [name.replace("/", " ") for name in figures]
    header = [*(keys or ["settings"]), "runs", f"best {monitor}" if one_score else "best score", *shown, "seconds"]
    rows = [
        [
            *(group.settings.values() or ["all"]),
            str(len(group.members)),
            spread(group.scores()) if one_score else f"{group.members[0].monitor} {spread(group.scores())}",
            *(spread(group.figure(name)) for name in figures),
            f"{statistics.mean(member.seconds or 0 for member in group.members):.1f}",
        ]
        for group in groups
    ]
    about = f"Runs that differ only in {repeated} share a line: mean ± standard deviation."
    optimistic = any(name.startswith("validation/") for name in figures)
    if best:
        about += " The best is picked by its validation score" + ("." if optimistic else "; the test rows have no say.")
    if optimistic:
        about += " Without a test split the metrics are of the rows that picked the checkpoint: they are optimistic."
    return Overview(keys, monitor, mode, one_score, groups, best, header, rows, about, findings)


def summarise(folder: Path) -> list[Member]:
    """Write ``summary.html``, ``summary.md`` and ``runs.csv`` into the folder of a multirun, and show the table.

    Returns:
        The runs that the same command would try again: those that failed or were stopped.
    """
    members = read_members(folder)
    title = f"{counted(len(members), 'run')} of {folder.name}"
    return _summarise(members, title, folder / "summary.html", folder / "runs.csv", folder)


def summarise_several(folders: Sequence[Path], page: Path) -> None:
    """A summary like that of a multirun, of the runs of several folders, each of a run or a multirun.

    Args:
        page: to write, with the table as Markdown and the runs as csv beside it.
    """
    found = [member for folder in folders for member in read_members(folder)]
    members = comparable(found)
    title = f"{counted(len(members), 'run')} of {len(folders)} folders"
    if len(members) < len(found):
        print(f"Left out, since others have the same settings and seed: {counted(len(found) - len(members), 'run')}.")
    _summarise(members, title, page, page.with_suffix(".csv"), None)


def _summarise(members: list[Member], title: str, page: Path, table: Path, multirun: Path | None) -> list[Member]:
    over = overview(members)
    keys, groups, best = over.keys, over.groups, over.best
    unfinished = [member for member in members if member.status != "finished"]
    every = [(group, found) for group in groups if (found := folds.out_of_fold(group))]
    tables = [(OUT_OF_FOLD, *folds.table_rows(every, SHOWN))] if every else []
    doubts = next((folds.write(multirun, found) for group, found in every if group is best and multirun), None)
    context = {
        "title": title,
        "command": command_of(best) if best else "",
        "folds": best is not None and len(best.by_fold()) > 1,
        "one_score": over.one_score,
        "monitor": over.monitor,
        "about": over.about,
        "keys": keys,
        "header": over.header,
        "rows": over.rows,
        "best": groups.index(best) if best else None,
        "findings": over.findings,
        "pictures": sweep_plots.pictures(
            [
                (group.settings, statistics.mean(group.scores()), deviation(group.scores()))
                for group in groups
                if group.scores() and over.one_score
            ],
            keys,
            over.monitor,
            over.mode,
        ),
        "tables": tables,
        "doubts": doubts,
        "members": [(member, os.path.relpath(member.folder, page.parent)) for member in members],
        "unfinished": unfinished,
    }
    if not doubts and multirun:  # of an earlier summary
        for name in (folds.PREDICTIONS, folds.ERRORS):
            (multirun / name).unlink(missing_ok=True)
    write_html(page, "sweep.html", context)
    files.write_text(page.with_suffix(".md"), _markdown(title, over, tables, unfinished))
    _write_csv(table, members)
    print(summary.table(title, over.header, over.rows))
    for line in over.findings:
        print(line)
    for own in tables:
        print(summary.table(*own))
    for line in dict.fromkeys(f"{member.status}: {member.error or member.name}" for member in unfinished):
        print(line)
    waiting = [member for member in unfinished if member.status != "pruned"]
    if waiting:
        again = (
            "" if not multirun or all(member.mendable for member in waiting) else "; the same command tries them again"
        )
        print(f"Not finished: {len(waiting)}{again}.")
    if doubts and multirun:
        errors = counted(doubts["errors"], "likely label error")
        print(f"\n{errors}, most suspicious first: {runs.display(multirun / folds.ERRORS)}")
        print("The weaker the runs, the more of them are their own mistakes.")
    print(f"\nSummary  {runs.display(page)}")
    if multirun and (command := runs.sync_command(multirun)):
        print(f"Sync     {command}")
    return waiting


def _markdown(
    title: str,
    over: Overview,
    tables: Sequence[tuple[str, list[str], list[list[str]]]],
    unfinished: Sequence[Member],
) -> str:
    lines = [f"- {member.status}: `{member.name}` {member.error}\n" for member in unfinished]
    table, said = summary.markdown_table(over.header, over.rows), "".join(f"{line}\n\n" for line in over.findings)
    more = "".join(f"## {name}\n\n{summary.markdown_table(header, rows)}\n\n" for name, header, rows in tables)
    return f"# {title}\n\n{over.about}\n\n{table}\n\n{said}{more}{''.join(lines)}"


def _write_csv(path: Path, members: Sequence[Member]) -> None:
    keys = list(dict.fromkeys(key for member in members for key in member.settings))
    figures = list(dict.fromkeys(name for member in members for name in member.figures or {}))
    columns = ["run", *keys, "status", "scored by", "score", *figures, "seconds", "error"]
    rows = (
        [member.name, *map(member.settings.get, keys), member.status, member.monitor, member.score,
         *map((member.figures or {}).get, figures), member.seconds, member.error]
        for member in members
    )  # fmt: skip
    files.write_csv(path, columns, rows)

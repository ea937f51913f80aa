"""The summary of a multirun, or of several: what was swept, what it gave over seeds, the best, and what failed."""

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw import files, runs
from thaw.errors import counted
from thaw.reporting import folds, summary, sweep_plots
from thaw.reporting.findings import about, as_often, findings, mixed, same_rows
from thaw.reporting.html import write_html
from thaw.reporting.members import (
    FOLD,
    Group,
    Member,
    comparable,
    grouped,
    monitored,
    read_members,
    swept_keys,
)
from thaw.reporting.rivals import best_of
from thaw.reporting.summary import number

OUT_OF_FOLD = "Out of fold: every row, predicted by a run that did not train on it"
TEST_SIZE = "data.test_size"
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
    """The command of a run with the best settings; of several folds, of one on all rows.

    These need no further test: where the folds divide a single set, none of it is held out for one.
    """
    run = best.members[0].folder
    command = str(files.read_json(run / "environment.json")["command"])
    if len(best.by_fold()) < 2:
        return command
    single = "all" in files.read_json(run / "data.json")["files"] and TEST_SIZE not in command
    return re.sub(rf" {FOLD}=\d+", "", command) + (f" {TEST_SIZE}=0" if single else "")


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
    best = best_of(groups, mode) if one_score and as_often(groups) and same_rows(groups) and not mixed(groups) else None
    known = [f"{split}/{name}" for split in ("test", "validation") for name in SHOWN]
    figures = [name for name in known if any(group.figure(name) for group in groups)]
    score, shown = f"best {monitor}" if one_score else "best score", [name.replace("/", " ") for name in figures]
    trained = len({trainable(group) for group in groups}) > 1
    header = [*(keys or ["settings"]), "runs", score, *shown, *(["trainable"] if trained else []), "seconds"]
    rows = [_row(group, figures, one_score, trained) for group in groups]
    said = about(groups, best, optimistic=any(name.startswith("validation/") for name in figures))
    found = findings(groups, best, scores, monitor)
    return Overview(keys, monitor, mode, one_score, groups, best, header, rows, said, found)


def trainable(group: Group) -> str:
    """How many parameters the runs of a group trained, of which runs of earlier versions say nothing."""
    numbers = sorted({member.trainable for member in group.members if member.trainable is not None})
    return " to ".join(f"{number:,}" for number in dict.fromkeys([*numbers[:1], *numbers[-1:]])) or "–"


def _row(group: Group, figures: Sequence[str], one_score: bool, trained: bool) -> list[str]:
    score = spread(group.scores())
    return [
        *(group.settings.values() or ["all"]),
        str(len(group.members)),
        score if one_score else f"{group.members[0].monitor} {score}",
        *(spread(group.figure(name)) for name in figures),
        *([trainable(group)] if trained else []),
        f"{statistics.mean(member.seconds or 0 for member in group.members):.1f}",
    ]


def summarise(folder: Path) -> list[Member]:
    """Write ``summary.html``, ``.md`` and ``.tex``, and ``runs.csv``, into the folder of a multirun; show the table.

    Returns:
        The runs that the same command would try again: those that failed or were stopped.
    """
    members = read_members(folder)
    title = f"{counted(len(members), 'run')} of {folder.name}"
    return _summarise(members, title, folder / "summary.html", folder / "runs.csv", folder)


def summarise_several(folders: Sequence[Path], page: Path) -> None:
    """A summary like that of a multirun, of the runs of several folders, each of a run or a multirun.

    Args:
        page: to write, with the table as Markdown and LaTeX and the runs as csv beside it.
    """
    found = [member for folder in folders for member in read_members(folder)]
    members = comparable(found)
    title = f"{counted(len(members), 'run')} of {len(folders)} folders"
    if len(members) < len(found):
        print(f"Left out, since others have the same settings and seed: {counted(len(found) - len(members), 'run')}.")
    _summarise(members, title, page, page.with_suffix(".csv"), None)


def _summarise(members: list[Member], title: str, page: Path, table: Path, multirun: Path | None) -> list[Member]:
    over = overview(members)
    unfinished = [member for member in members if member.status != "finished"]
    waiting = [member for member in unfinished if member.status != "pruned"]
    validated, torn = folds.every_out_of_fold(over.groups)
    over.findings += torn
    tables = [(OUT_OF_FOLD, *folds.table_rows(validated, SHOWN))] if validated else []
    doubts = _write_doubts(multirun, validated, over.best) if multirun else None
    context = {
        **vars(over),
        "title": title,
        "command": command_of(over.best) if over.best else "",
        "folds": over.best is not None and len(over.best.by_fold()) > 1,
        "best": over.groups.index(over.best) if over.best else None,
        "pictures": sweep_plots.pictures(_points(over), over.keys, over.monitor, over.mode),
        "tables": tables,
        "doubts": doubts,
        "members": [(member, os.path.relpath(member.folder, page.parent)) for member in members],
        "unfinished": unfinished,
    }
    write_html(page, "sweep.html", context)
    files.write_text(page.with_suffix(".md"), _markdown(title, over, tables, unfinished))
    several = len(over.groups) > 1  # then there are keys that tell them apart
    score = (over.groups.index(over.best), len(over.keys) + 1) if over.best and several else None
    latex = [
        summary.latex_table(title, over.header, over.rows, score),
        *(summary.latex_table(*held) for held in tables),
    ]
    files.write_text(page.with_suffix(".tex"), "\n".join(latex))
    _write_csv(table, members)
    lines = [summary.table(title, over.header, over.rows), *over.findings, *(summary.table(*held) for held in tables)]
    lines += dict.fromkeys(f"{member.status}: {member.error or member.name}" for member in unfinished)
    if waiting:
        again = multirun and not all(member.mendable for member in waiting)
        lines.append(f"Not finished: {len(waiting)}{'; the same command tries them again' if again else ''}.")
    if doubts and multirun:
        errors = counted(doubts["errors"], "likely label error")
        lines.append(f"\n{errors}, most suspicious first: {runs.display(multirun / folds.ERRORS)}")
        lines.append("The weaker the runs, the more of them are their own mistakes.")
    lines.append(f"\nSummary  {runs.display(page)}")
    if context["folds"]:
        lines.append(f"Final    {context['command']}")
    if multirun and (command := runs.sync_command(multirun)):
        lines.append(f"Sync     {command}")
    print("\n".join(lines))
    return waiting


def _write_doubts(
    multirun: Path, validated: Sequence[tuple[Group, folds.OutOfFold]], best: Group | None
) -> dict[str, Any] | None:
    """Write which labels the best settings put in doubt; without them remove what an earlier summary wrote."""
    for group, found in validated:
        if group is best:
            return folds.write(multirun, found)
    for name in (folds.PREDICTIONS, folds.ERRORS):
        (multirun / name).unlink(missing_ok=True)
    return None


def _points(over: Overview) -> list[sweep_plots.Point]:
    groups = [group for group in over.groups if group.scores() and over.one_score]
    return [(group.settings, statistics.mean(group.scores()), deviation(group.scores())) for group in groups]


def _markdown(
    title: str, over: Overview, tables: Sequence[tuple[str, list[str], list[list[str]]]], unfinished: Sequence[Member]
) -> str:
    lines = [f"- {member.status}: `{member.name}` {member.error}\n" for member in unfinished]
    table, said = summary.markdown_table(over.header, over.rows), "".join(f"{line}\n\n" for line in over.findings)
    more = "".join(f"## {name}\n\n{summary.markdown_table(header, rows)}\n\n" for name, header, rows in tables)
    return f"# {title}\n\n{over.about}\n\n{table}\n\n{said}{more}{''.join(lines)}"


def _write_csv(path: Path, members: Sequence[Member]) -> None:
    keys = list(dict.fromkeys(key for member in members for key in member.settings))
    figures = list(dict.fromkeys(name for member in members for name in member.figures or {}))
    columns = ["run", *keys, "status", "scored by", "score", *figures, "trainable", "seconds", "error"]
    rows = (
        [member.name, *map(member.settings.get, keys), member.status, member.monitor, member.score,
         *map((member.figures or {}).get, figures), member.trainable, member.seconds, member.error]
        for member in members
    )  # fmt: skip
    files.write_csv(path, columns, rows)

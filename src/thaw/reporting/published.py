"""Published figures next to those obtained: ``report.py runs=<multirun> paper=true``."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thaw import files, runs
from thaw.errors import UserError
from thaw.metrics.baselines import UNTRAINED
from thaw.overrides import GONE
from thaw.reporting.html import write_html
from thaw.reporting.members import Group, Member, grouped, overridden, read_members, swept_keys
from thaw.reporting.summary import markdown_table, table
from thaw.reporting.sweep import spread
from thaw.settings import neutral

SAME_PROTOCOL = ("experiment", "seed", "data.path")  # data.path names a copy of the same data
HEADER = ["experiment", "figure", "published", "obtained", "runs", "difference", "verdict"]
BEFORE = "untrained "
Expected = Sequence[Mapping[str, Any]]
Experiment = tuple[str, Expected, Group]
"""Its name, the figures it should reproduce, and its runs."""


def obtained(run: Path, figure: str) -> float | None:
    """A figure of a finished run.

    Args:
        run: its folder.
        figure: ``test/...`` or ``validation/...`` as in ``metrics.json``; ``val/...`` as in ``history.csv`` at the best
            step; ``untrained test/...`` of the encoder before training.
    """
    metrics = files.read_json(run / "metrics.json")
    if figure.startswith("val/"):
        rows = (row for row in runs.history(run) if int(row["step"]) == metrics["best"]["step"])
        at_best = [float(row[figure]) for row in rows if row.get(figure)]
        return at_best[-1] if at_best else None
    if figure.startswith(BEFORE):
        split, _, name = figure.removeprefix(BEFORE).partition("/")
        value = metrics["baselines"].get(split, {}).get(UNTRAINED, {}).get(name)
    else:
        value = metrics.get(figure)
    return None if value is None else float(value)


def deviations(settings: Mapping[str, str]) -> list[str]:
    """The overrides that change the protocol of an experiment."""
    changed = {key: value for key, value in settings.items() if key not in SAME_PROTOCOL and not neutral(key)}
    return [f"~{key}" if value == GONE else f"{key}={Path(value).name}" for key, value in changed.items()]


def verdict(entry: Mapping[str, Any], value: float | None, others: Sequence[str]) -> str:
    """Whether a figure was reproduced.

    Args:
        entry: of ``expected``, with ``value`` and ``tolerance``.
        value: the figure that was obtained.
        others: the overrides that change the protocol.
    """
    if value is None:
        return "not obtained"
    if others:
        return f"another protocol: {' '.join(others)}"
    if entry["value"] is None:
        return "none published"
    # 0.948 is within 0.01 of 0.938, but not as floats.
    if round(abs(value - entry["value"]) - entry["tolerance"], 9) <= 0:
        return "within tolerance"
    return "above" if value > entry["value"] else "below"


def rows_of(name: str, expected: Expected, settings: Mapping[str, str], members: Sequence[Path]) -> list[list[str]]:
    """One line for each published figure of an experiment.

    Args:
        name: of the experiment.
        expected: as in its config.
        settings: its overrides.
        members: run folders that differ only in their seed.
    """
    rows = []
    for entry in expected:
        values = [value for value in (obtained(run, entry["figure"]) for run in members) if value is not None]
        mean = statistics.mean(values) if values else None
        difference = "–" if mean is None or entry["value"] is None else f"{mean - entry['value']:+.4f}"
        published = "–" if entry["value"] is None else f"{entry['value']:g} ± {entry['tolerance']:g}"
        judged = verdict(entry, mean, deviations(settings))
        rows.append([name, entry["figure"], published, spread(values), str(len(values)), difference, judged])
    return rows


def experiments_of(members: Sequence[Member]) -> list[Experiment]:
    """The finished runs with published figures; runs that differ only in their seed form one experiment."""
    parts = [
        (
            (first := group.members[0]).settings.get("experiment", first.name),
            runs.load_config(first.folder).get("expected") or [],
            group,
        )
        for group in grouped(members, swept_keys(members))
    ]
    return [part for part in parts if part[1]]


def all_rows(parts: Sequence[Experiment]) -> list[list[str]]:
    """The lines of several experiments."""
    return [
        row
        for name, expected, group in parts
        for row in rows_of(name, expected, group.members[0].settings, [member.folder for member in group.members])
    ]


def compare_with_paper(folder: Path) -> None:
    """Write ``paper.html``, ``paper.md`` and ``paper.csv`` into the folder of a multirun, and show the table.

    Raises:
        UserError: when none of its finished runs is an experiment with published figures.
    """
    members = read_members(folder)
    parts = experiments_of(members)
    if not parts:
        raise UserError(
            f"{runs.display(folder)}: no finished run has published figures",
            "Start some: python train.py -m experiment=... seed=1,2,3.",
        )
    title, rows = f"Published and obtained: {folder.name}", all_rows(parts)
    sources = [(name, entry) for name, expected, _ in parts for entry in expected]
    unfinished = [member for member in members if member.status != "finished"]
    context = {"title": title, "header": HEADER, "rows": rows, "sources": sources, "experiments": parts}
    write_html(folder / "paper.html", "paper.html", {**context, "unfinished": unfinished})
    files.write_text(folder / "paper.md", _markdown(title, rows, parts, sources))
    files.write_csv(folder / "paper.csv", HEADER, rows)
    print(table("Published and obtained", HEADER, rows))
    for member in unfinished:
        print(f"{member.status}: {member.folder.name} {member.error}")
    print(f"\nReport  {runs.display(folder / 'paper.html')}")


def _markdown(
    title: str, rows: Sequence[Sequence[str]], parts: Sequence[Any], sources: Sequence[tuple[str, Mapping[str, Any]]]
) -> str:
    lines = [f"- {name}, {one['figure']}: {one['source']} {one['reason']}" for name, one in sources]

    def link(member: Member) -> str:
        return f"[{member.folder.name}]({member.folder.name}/report.html)"

    links = [f"- {name}: {', '.join(map(link, group.members))}" for name, _, group in parts]
    return "\n".join(
        [f"# {title}", "", markdown_table(HEADER, rows), "", "Sources", "", *lines, "", "Runs", "", *links, ""]
    )


def published_table(run: Path) -> str:
    """The table of published figures for the end of a run; empty if the run is not an experiment."""
    expected = runs.load_config(run).get("expected") or []
    if not expected:
        return ""
    settings = overridden(run)
    return table("Published", HEADER, rows_of(settings.get("experiment", "–"), expected, settings, [run]))

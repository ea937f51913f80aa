"""Tables of data, parameters and metrics, for the terminal, Markdown and LaTeX; and the last lines of a run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thaw.data.pairs import joined
from thaw.labels import LabelSet
from thaw.metrics.entities import entity_types, spans
from thaw.runs import display, shell_path

Rows = Sequence[Sequence[str]]
NEGATIVE = re.compile(r"(?<![\w.-])-(?=\d)")  # the sign of a number
SHOWN_LABELS = 30  # rows of a table by label
OF_LATEX = str.maketrans({  # its special characters, and those that only mathematics sets
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "≤": r"$\leq$", "<": "$<$", ">": "$>$", "–": "--",
})  # fmt: skip
# Facts about data that only some tasks, or settings, have: key, title, format.
OF_TASK = (
    ("truncated", "truncated", ".1%"),
    ("windowed", "read in windows", ".1%"),
    ("tokenless", "words without a token", ","),
    ("unread", "words cut off in training", ","),  # of earlier versions
    ("unlabelled", "rows without a label", ","),
    ("groups", "groups", ","),
)


def interactive() -> bool:
    """Whether standard output is a terminal."""
    return Console().is_terminal


def table(title: str, header: Sequence[str], rows: Rows) -> str:
    """A table as text, for the terminal and the log: the first column left-aligned, all others right-aligned."""
    # As Text, since rich would parse a label like [red] as markup.
    grid = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for position, name in enumerate(header):
        grid.add_column(Text(name), justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    # If standard output is not a terminal, tables get the width of a page.
    page = Console(width=Console().width if interactive() else 120, force_terminal=False)
    with page.capture() as captured:
        page.print(grid, highlight=False)
    return "\n" + "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """A table as Markdown, aligned like `table`; each row is one line, whatever its cells contain."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---", *["---:"] * (len(header) - 1)]), *map(line, rows)])


def latex_table(title: str, header: Sequence[str], rows: Rows, best: tuple[int, int] | None = None) -> str:
    """A table for LaTeX, aligned like `table`; the title stands above, as a comment.

    Args:
        best: row and column of the cell in bold, if any.
    """

    def line(cells: Sequence[str], row: int | None = None) -> str:
        shown = [NEGATIVE.sub("$-$", " ".join(cell.split()).translate(OF_LATEX)) for cell in cells]
        if best and row == best[0]:
            shown[best[1]] = rf"\textbf{{{shown[best[1]]}}}"
        return " & ".join(shown) + r" \\"

    body = [line(cells, i) for i, cells in enumerate(rows)]
    begin = [f"% {title}", r"% Needs \usepackage{booktabs}.", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"]
    lines = [*begin, r"\toprule", line(header), r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def data_tables(summary: dict[str, Any]) -> list[tuple[str, Sequence[str], Rows]]:
    """Tables of rows by split, with tokens per text and what is unusual, and of rows by label."""
    splits = summary["splits"]
    labels = [[label, *(f"{split['labels'][label]:,}" for split in splits.values())] for label in summary["labels"]]
    unit = "words" if summary["task"] == "token" else "rows"
    facts = [
        ["rows", *(f"{split['rows']:,}" for split in splits.values())],
        ["tokens per text, median", *(f"{split['tokens']['median']:g}" for split in splits.values())],
        ["tokens per text, 95 %", *(f"{split['tokens']['p95']:.0f}" for split in splits.values())],
        ["tokens per text, longest", *(f"{split['tokens']['max']}" for split in splits.values())],
        *(
            [title, *(format(split[key], form) for split in splits.values())]
            for key, title, form in OF_TASK
            if key in splits["train"]
        ),
        ["repeated texts", *(f"{split['repeated']:,}" for split in splits.values())],
        ["rows skipped", *(f"{summary['skipped'].get(name, 0):,}" for name in splits)],
    ]
    if "all" in summary["skipped"]:  # of a single file that was split afterwards
        facts[-1] = ["rows skipped, of all", f"{summary['skipped']['all']:,}", *[""] * (len(splits) - 1)]
    return [
        ("Data", ["", *splits], facts),
        (f"Labels ({unit}; {summary['label_order']})", ["label", *splits], _first_labels(labels)),
    ]


def parameter_rows(blocks: list[dict[str, Any]]) -> tuple[Sequence[str], Rows]:
    """One row per block: parameters, trainable, learning rate; and one for the whole network."""

    def rate(value: Any) -> str:
        if value is None:
            return "frozen"
        return ", then ".join(f"{one:.2g}" for one in value) if isinstance(value, list) else f"{value:.2g}"

    rows = [
        [row["block"], f"{row['parameters']:,}", f"{row['trainable']:,}", rate(row["learning_rate"])] for row in blocks
    ]
    total = sum(row["parameters"] for row in blocks)
    training = sum(row["trainable"] for row in blocks)
    rows.append(["all", f"{total:,}", f"{training:,}", f"{training / total:.2%} trainable"])
    return ["block", "parameters", "trainable", "learning rate"], rows


def headline_rows(metrics: Mapping[str, Any], splits: Sequence[str]) -> tuple[Sequence[str], Rows]:
    """One row per metric, with a column per split; for the last split also the interval and the baselines.

    Args:
        metrics: as in ``metrics.json``.
    """
    last = splits[-1]
    beside = metrics["baselines"].get(last, {})
    rows = [
        [
            title,
            *(number(metrics.get(f"{split}/{name}")) for split in splits),
            interval(metrics["intervals"].get(f"{last}/{name}")),
            *(number(figures.get(name)) for figures in beside.values()),
        ]
        for name, title in titled(headline_names(metrics, splits)).items()
    ]
    return ["", *splits, "95 %", *beside], rows


def headline(metrics: Mapping[str, Any], split: str) -> str:
    """Accuracy and F1 of a split in a line, with their intervals."""
    shown = [(name, f"{split}/{name}") for name in headline_names(metrics, [split]) if name in ("accuracy", "f1")]
    parts = [(name, number(metrics[key]), interval(metrics["intervals"].get(key))) for name, key in shown]
    return f"{split}: " + ", ".join(f"{name} {value}" + f" (95 %: {pair})" * bool(pair) for name, value, pair in parts)


def headline_names(metrics: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """The names of the metrics of whole splits, without those by label."""
    found = (name.split("/") for name in metrics)
    return list(dict.fromkeys(parts[1] for parts in found if len(parts) == 2 and parts[0] in splits))


def titled(names: Sequence[str]) -> dict[str, str]:
    """Titles of metrics in a table: ``f1`` says which average it is, and that average has no row of its own."""
    # For entities, f1 is the score over all of them, as is plain precision.
    average = None if "precision" in names else next((one for one in names if one in ("f1_micro", "f1_macro")), None)
    titles = {name: name for name in names if name != average}
    return titles | ({"f1": f"f1 ({average.removeprefix('f1_')})"} if average else {})


def interval(pair: Sequence[float] | None) -> str:
    """An interval in words: ``0.912 to 0.934``."""
    if pair is None:
        return ""
    low, high = (round(value, 3) + 0.0 for value in pair)  # no -0.000
    return f"{low:.3f} to {high:.3f}"


def label_rows(values: Mapping[str, float | None], split: str, counts: dict[str, int]) -> tuple[Sequence[str], Rows]:
    """The classification report: precision, recall, F1 and support by label; of many labels those that come first."""
    rows = [
        [name, *(number(values[f"{split}/{kind}/{name}"]) for kind in ("precision", "recall", "f1")), f"{count:,}"]
        for name, count in counts.items()
    ]
    return ["label", "precision", "recall", "F1", "support"], _first_labels(rows)


def _first_labels(rows: list[list[str]]) -> list[list[str]]:
    """The first rows of a table by label, and how many more there are, as the page lists them."""
    more = len(rows) - SHOWN_LABELS
    return [*rows[:SHOWN_LABELS], [f"… {more} more", *[""] * (len(rows[0]) - 1)]] if more > 0 else rows


def occurrences(gold: Sequence[Any], labels: LabelSet) -> dict[str, int]:
    """How often each label, or each entity type, occurs in the true labels."""
    if labels.entities:
        found = Counter(kind for row in gold for kind, _, _ in spans([labels.names[i] for i in row]))
        return {kind: found.get(kind, 0) for kind in entity_types(labels)}
    flat = [i for row in gold for i in row] if labels.task != "sequence" else gold
    found = Counter(labels.names[i] for i in flat)
    return {name: found.get(name, 0) for name in labels.names}


def example(labels: LabelSet) -> str:
    """An example text for trying out a model."""
    if "B-PER" in labels.ids:
        return "Angela Merkel visited Paris."
    if labels.pairs:
        return joined("It rains all day.", "The street is wet.")
    return "A sentence of yours." if labels.task == "token" else "I love this"


def goodbye(run: Path, labels: LabelSet, split: str) -> str:
    """Where the results are, and what to do next.

    Args:
        split: the last one that was scored.
    """
    folder = display(run)
    lines = [
        f"Report     {folder}/report.html",
        f"Model      {folder}/model   (opens with transformers' pipeline)",
        f'Predict    python predict.py run={shell_path(run)} text="{example(labels)}"',
        f"Evaluate   python evaluate.py run={shell_path(run)}" + ("" if split == "test" else f" split={split}"),
    ]
    return "\n" + "\n".join(lines)

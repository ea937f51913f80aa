"""What a run prints about itself: tables for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thaw.data.pairs import joined
from thaw.errors import counted
from thaw.labels import NUMBER, LabelSet, folded
from thaw.metrics.baselines import BAG_OF_WORDS
from thaw.runs import display, shell_path

Rows = Sequence[Sequence[str]]
SHOWN_LABELS = 30  # rows of a table by label
FEW = 500  # rows of test: with fewer, accuracy is uncertain by more than 4 points
SEPARATORS = ("|", ";", ",")  # of several labels in one field
MANY_LABELS, ROWS_PER_LABEL = 20, 5  # more labels than that, each with fewer rows, are rather dates or ids
SHOWN_NAMES = 5  # names listed in a line
TRUNCATED = 0.1  # share of the training rows from which on advice names data.max_length
FOR_MISSING = {"nan", "NaN", "NaT", "<NA>", "NA", "N/A", "#N/A", "n/a", "None", "null", "NULL"}  # of pandas, SQL, Excel


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


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def data_tables(summary: dict[str, Any]) -> list[tuple[str, Sequence[str], Rows]]:
    """Tables of rows by split, with tokens per text and what is unusual, and of rows by label."""
    splits = summary["splits"]
    labels = [[label, *(f"{split['labels'][label]:,}" for split in splits.values())] for label in summary["labels"]]
    cut = [[f"… {len(labels) - SHOWN_LABELS} more", *[""] * len(splits)]] if len(labels) > SHOWN_LABELS else []
    unit = "words" if summary["task"] == "token" else "rows"
    facts = [
        ["rows", *(f"{split['rows']:,}" for split in splits.values())],
        ["tokens per text, median", *(f"{split['tokens']['median']:g}" for split in splits.values())],
        ["tokens per text, 95 %", *(f"{split['tokens']['p95']:.0f}" for split in splits.values())],
        ["tokens per text, longest", *(f"{split['tokens']['max']}" for split in splits.values())],
        ["truncated", *(f"{split['truncated']:.1%}" for split in splits.values())],
        *(
            [title, *(f"{split[key]:,}" for split in splits.values())]
            for key, title in (("unread", "words cut off"), ("unlabelled", "rows without a label"))
            if key in splits["train"]
        ),
        ["repeated texts", *(f"{split['repeated']:,}" for split in splits.values())],
        ["rows skipped", *(f"{summary['skipped'].get(name, 0):,}" for name in splits)],
    ]
    if "all" in summary["skipped"]:  # of a single file that was split afterwards
        facts[-1] = ["rows skipped, of all", f"{summary['skipped']['all']:,}", *[""] * (len(splits) - 1)]
    return [
        ("Data", ["", *splits], facts),
        (f"Labels ({unit}; {summary['label_order']})", ["label", *splits], labels[:SHOWN_LABELS] + cut),
    ]


def notes(summary: dict[str, Any]) -> list[str]:
    """What is unusual about the data, one line each: texts in two splits, similar label names, labels without rows."""
    lines = [
        f"texts of {pair['in']} that are also in {pair['also_in']}: {pair['rows']:,}"
        for pair in summary["shared"]
        if pair["rows"]
    ]
    sizes = {name: split["rows"] for name, split in summary["splits"].items()}
    if "all" in summary["files"] and not summary.get("fold") and sizes["test"] < FEW:
        lines.append(
            f"{counted(sizes['test'], 'row')} of test: sweep=folds tests on all {sum(sizes.values()):,} in turn"
        )
    alike: dict[str, list[str]] = {}
    for label in summary["labels"]:
        alike.setdefault(folded(label), []).append(label)
    if several := [" and ".join(names) for names in alike.values() if len(names) > 1]:
        lines.append(f"labels that differ only in case or blanks: {listed(several)}")
    if summary["task"] == "token":
        return lines + _odd_tags(summary["labels"])
    if summary["task"] == "sequence":
        lines += _odd_labels(summary["labels"], sizes["train"])
    if absent := [label for label in summary["labels"] if label in FOR_MISSING]:
        lines.append(f"labels that may stand for a missing one: {listed(absent)}")
    for name, split in summary["splits"].items():
        if absent := [label for label, count in split["labels"].items() if not count]:
            lines.append(f"labels without a row in {name}: {listed(absent)}")
    own = summary["splits"].values() if summary["task"] == "multi_label" else ()
    if own and all(sum(split["labels"].values()) + split["unlabelled"] == split["rows"] for split in own):
        lines.append("no text has more than one label: is data.label_separator, or data.task, as it should be?")
    return lines


def _odd_labels(names: Sequence[str], rows: int) -> list[str]:
    """What makes it doubtful that a column holds one label of a few."""
    lines = []
    for separator in SEPARATORS:
        parts = {name: [part.strip() for part in name.split(separator)] for name in names if separator in name}
        if joins := [name for name, own in parts.items() if set(own) <= {*names}]:
            lines.append(f'labels that join others, unless data.label_separator="{separator}": {listed(joins)}')
    if len(names) > MANY_LABELS and rows < ROWS_PER_LABEL * len(names):
        lines.append(f"{len(names):,} labels in {rows:,} rows of train: is data.label_column the right one?")
    return lines


def left_out(summary: dict[str, Any]) -> list[str]:
    """The first rows that were left out, a line each, and how many more there are."""
    lines: list[str] = summary["skipped_rows"]
    more = sum(summary["skipped"].values()) - len(lines)
    return [*lines, counted(more, "more row")] if more else lines


def _odd_tags(names: Sequence[str]) -> list[str]:
    """What is unusual about word tags. A tag without words is not, since B- and I- are always listed in pairs."""
    if all(NUMBER.fullmatch(name) for name in names):
        return ["the tags are numbers and mark no entities; their names: data.label_names=[O,B-PER,I-PER,...]"]
    plain = [name for name in names if name != "O" and name[:2] not in ("B-", "I-")]
    if len(plain) < len(names) - 1 and plain and any(name.startswith("B-") for name in names):
        return [f"tags that are neither O nor begin with B- or I-, and so mark no entity: {listed(plain)}"]
    return []


def advice(
    metrics: Mapping[str, Any], split: str, counts: Mapping[str, int], data: Mapping[str, Any] | None = None
) -> list[str]:
    """What the metrics of a split suggest, one sentence each.

    Args:
        metrics: as in ``metrics.json``.
        counts: how often each label, or entity type, occurs in the split.
        data: as in ``data.json``.
    """
    lines = list(metrics.get("notes", []))
    if made_worse(metrics, split):
        before, after = metrics[f"{split}/ece"], metrics[f"{split}/ece_calibrated"]
        lines.append(
            f"The temperature, fitted on validation, raises the calibration error of {split} from {before:.3f} to "
            f"{after:.3f}: leave calibrated=true out, unless your texts are more like those of validation."
        )
    own = metrics[f"{split}/f1"]
    baselines = metrics["baselines"].get(split, {})
    beside = {name: figures["f1"] for name, figures in baselines.items() if figures.get("f1") is not None}
    best = max(beside, key=lambda name: beside[name], default="")
    if beside and beside[best] >= own:
        said = "does as well in F1" if beside[best] == own else "has the higher F1"
        cut = data["splits"]["train"]["truncated"] if data else 0.0
        more = " More data.epochs or another optimizer.lr may help." if own < 1 else ""
        if more and best == BAG_OF_WORDS and cut >= TRUNCATED:  # a bag of words reads whole texts
            more = (
                " More data.epochs, another optimizer.lr, or a larger data.max_length (if need be, another encoder) "
                f"may help: {cut:.0%} of the training rows are truncated."
            )
        lines.append(f"{best} {said} ({beside[best]:.3f}, this run {own:.3f}).{more}")
    if never := [name for name, count in counts.items() if count and not metrics[f"{split}/recall/{name}"]]:
        lines.append(
            f"Never found: {listed(never)}. More data.epochs, another optimizer.lr, or loss=balanced may help."
        )
    # Of a rare label that the run hardly tells from others, the best F1 is to give it to many rows.
    given = {name: _given(metrics, split, name, count) for name, count in counts.items()}
    if often := [f"{name} ({given[name]:,} for {counts[name]:,})" for name in given if given[name] > 5 * counts[name]]:
        lines.append(f"Given far too often: {listed(often)}. More data.epochs, or more rows with them, may help.")
    return lines


def made_worse(metrics: Mapping[str, Any], split: str) -> bool:
    """Whether temperature scaling raises the calibration error of a split so far that the intervals do not overlap."""
    pairs = [metrics.get("intervals", {}).get(f"{split}/{name}") for name in ("ece", "ece_calibrated")]
    return all(pairs) and bool(pairs[0][1] < pairs[1][0])


def _given(metrics: Mapping[str, Any], split: str, name: str, count: int) -> int:
    """How often a label was predicted; 0 where none of the predictions is right, from which it does not follow."""
    # None in metrics.json, nan before it is written: of labels that do not occur.
    precision, recall = (metrics.get(f"{split}/{kind}/{name}") or 0.0 for kind in ("precision", "recall"))
    return round(count * recall / precision) if precision > 0 and recall > 0 else 0


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


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
    return "" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"


def label_rows(values: Mapping[str, float | None], split: str, counts: dict[str, int]) -> tuple[Sequence[str], Rows]:
    """The classification report: precision, recall, F1 and support by label."""
    names = [name.split("/", 2)[2] for name in values if name.startswith(f"{split}/f1/")]
    rows = []
    for name in names:
        scores = [number(values[f"{split}/{kind}/{name}"]) for kind in ("precision", "recall", "f1")]
        rows.append([name, *scores, f"{counts[name]:,}"])
    return ["label", "precision", "recall", "F1", "support"], rows


def occurrences(gold: Sequence[Any], labels: LabelSet) -> dict[str, int]:
    """How often each label, or each entity type, occurs in the true labels."""
    from collections import Counter

    from thaw.metrics.entities import entity_types, spans

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

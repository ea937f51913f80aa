"""From the labels that stand in the data to a task, a label set and ids."""

import logging
from collections.abc import Sequence
from typing import Any

from thaw.data.rows import dataset_of
from thaw.data.sources import Source
from thaw.data.tags import are_bioes, are_io, by_iob1, iob2_names, like_bioes, to_iob2
from thaw.errors import UserError, first_few
from thaw.labels import LabelSet, Task, folded, order_names, order_tags

FORMS = {"token": "a list of words with a tag each", "multi_label": "a list of labels", "sequence": "one label"}
SHOWN = 20  # labels named in a message
log = logging.getLogger(__name__)


def form_of(source: Source) -> Task:
    """The task that the first row is of."""
    row = next(iter(source.splits.values()))[0]
    words, several = isinstance(row["text"], list), isinstance(row["label"], list)
    return "token" if words else "multi_label" if several else "sequence"


def detect_task(source: Source, data: dict[str, Any]) -> Task:
    """Single-label, multi-label or token task, by the form of the rows, or as ``data.task`` forces it.

    One label is turned into a list of one for a forced multi-label task, and back for a single-label task.
    """
    found = form_of(source)
    wanted: Task | None = data.get("task")
    if wanted is None or wanted == found:
        return found
    if found == "token" or wanted == "token":
        raise UserError(
            f"data.task={wanted}, but each row has {FORMS[found]}", f"Leave data.task out, or set data.task={found}."
        )
    for name, rows in source.splits.items():
        labels = rows["label"][:]
        if wanted == "sequence" and (odd := [i for i, row_labels in enumerate(labels) if len(row_labels) != 1]):
            problem = f"{len(labels[odd[0]])} labels, where data.task=sequence needs one"
            raise UserError(f"{_place(source, name, odd[0])}: {problem}", "Leave data.task out.")
        changed = [row_labels[0] if wanted == "sequence" else [row_labels] for row_labels in labels]
        source.splits[name] = _relabelled(rows, changed)
    return wanted


def derive_labels(rows: Any, task: Task, given: Sequence[str] | None) -> LabelSet:
    """The label set of the training split; counts follow once the splits are made."""
    column = rows.data.column("label").combine_chunks()
    values = (column.flatten() if task != "sequence" else column).unique().to_pylist()
    if task == "token":
        values, given = _as_iob2(values, given)
    names, order = (order_tags if task == "token" else order_names)(values, given)
    return LabelSet(task, names, (0,) * len(names), order, given=bool(given))


def _as_iob2(values: list[str], given: Sequence[str] | None) -> tuple[list[str], Sequence[str] | None]:
    """The tags that occur, and the given ones, in IOB2; of another scheme they are no longer as given."""
    names = list(map(str, given or values))
    if "O" in names and (unclear := like_bioes(names)) and not are_bioes(names):
        log.warning(
            "Tags such as %s are taken as they are, since no type of them has B- or I-, too. If they are of BIOES or "
            "BILOU, name B- and I- of each type in data.label_names.", unclear[0],
        )  # fmt: skip
    if are_io(names) and not are_bioes(names):
        log.warning(
            "Tags without B- and I-: neighbouring equal tags are read as one entity. If they are classes of words, "
            "give O another name."
        )
        return iob2_names(by_iob1(names)), None
    tags = iob2_names(names)
    return (values, given) if given and {*tags} == {*names} else (tags, None)


def _known_tags(tags: list[str], labels: LabelSet) -> list[str]:
    """The tags of a sentence in IOB2; those that are unknown so, too, unchanged."""
    return [new if new in labels.ids else tag for tag, new in zip(tags, to_iob2(tags, labels.ids), strict=True)]


def _with_prefixes(tags: list[str], labels: LabelSet) -> list[str]:
    """The IO tags of a sentence as IOB2; those that are unknown with prefixes, too, unchanged."""
    found = zip(tags, to_iob2(by_iob1(tags)), strict=True)
    return [tag if tag in labels.ids else prefixed if prefixed in labels.ids else tag for tag, prefixed in found]


def _place(source: Source, split: str, position: int) -> str:
    row = source.splits[split][position]
    return source.place(split, row["file"], row["line"])


def _relabelled(rows: Any, labels: list[Any], keep: list[int] | None = None) -> Any:
    """Rows as `sources` gives them, or some of them, with other labels.

    By Arrow, since the datasets library would pickle all labels to find a name for the result.
    """
    import pyarrow as pa

    table = rows.data.table if keep is None else rows.data.table.take(keep)
    return dataset_of(table.set_column(table.column_names.index("label"), "label", pa.array(labels)))


def with_ids(source: Source, split: str, labels: LabelSet, data: dict[str, Any]) -> Any:
    """Replace label names by ids; what the training split does not know is an error, or a skipped row."""
    rows = source.splits[split]
    known = first_few(labels.names, SHOWN)
    keep: list[int] = []
    ids: list[Any] = []
    given = rows["label"][:]
    if labels.task == "token":
        given = [_known_tags(tags, labels) for tags in given]
    if labels.entities and not any(tag.startswith(("B-", "I-")) for tags in given for tag in tags):
        given = [_with_prefixes(tags, labels) for tags in given]
    for position, label in enumerate(given):
        try:
            row_ids = [labels.id_of(one) for one in label] if isinstance(label, list) else labels.id_of(label)
        except KeyError as unknown:
            place, problem = _place(source, split, position), f"the label {unknown.args[0]!r} is unknown"
            if close := [name for name in labels.names if folded(name) == folded(unknown.args[0])]:
                problem += f" (did you mean {close[0]!r}?)"
            if data.get("on_bad_row") != "skip":
                # The labels of a finished run, whose training rows are counted, stay as they are.
                add = " add it to data.label_names," if data.get("label_names") and not labels.rows else ""
                remedy = f"Correct it,{add} or leave such rows out: data.on_bad_row=skip."
                raise UserError(f"{place}: {problem}; known: {known}", remedy) from None
            source.skipped.append((split, place, problem))
            continue
        ids.append(sorted(set(row_ids)) if isinstance(row_ids, list) and labels.task == "multi_label" else row_ids)
        keep.append(position)
    if not keep:
        raise UserError(f"{', '.join(source.files[split])}: no row has a known label", f"Known: {known}.")
    return _relabelled(rows, ids, keep if len(keep) < len(rows) else None)

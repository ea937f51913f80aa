"""Hub, folder or file -> splits of one schema: columns ``text``, ``label``, ``line`` and ``file``.

``text`` is a string, or a list of words for token tasks. ``label`` is a string or a list of strings: numbers become
strings here, and ids later, once all labels of the training split are known. With ``data.group_column`` there is also
``group``, a string, or null for a row of its own.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from thaw.data import formats
from thaw.data.checking import NO_LABEL, checked, label_map, renamed, ticked
from thaw.data.columns import class_names, name_of, named_columns
from thaw.data.corrections import Correction, corrected, read_corrections, short_place
from thaw.data.layout import SPLIT_NAMES, files_of_one_split, kind_of, kind_of_name, split_files, split_of
from thaw.data.lines import NOT_UTF8, check_undecodable
from thaw.data.rows import CHUNK, Bad, Options, Row, dataset_of
from thaw.errors import NoGroups, UserError
from thaw.files import named_by
from thaw.hub import WAYS_OUT, go_offline_if_unreachable
from thaw.settings import check_source
from thaw.values import DATA_PATHS

BY_NAME = {  # what only columns with names can hold; a single text or label may also stand in others
    "text_column": "pairs of texts", "label_column": "labels of 0 and 1", "group_column": "rows with groups",
}  # fmt: skip
WITHOUT_COLUMNS = {"txt", "conll", "folder"}
log = logging.getLogger(__name__)


@dataclass
class Source:
    """The data that was found.

    Args:
        splits: a ``datasets.Dataset`` for each of train, validation and test that exists, or a single split ``all``.
        files: the files of each split, as shown in messages; a row's ``file`` is a position in this list.
        names: label names that the data itself states (ClassLabel).
        skipped: rows left out, as (split, place, problem).
        inside: entities that are marked from or to inside a word, as (split, place, what is marked).
        listings: the files in each folder of the aclImdb layout, in the order of its rows.
        corrections: of ``data.corrections``, by the short place of the row.
        corrected: of those that were found, whether the row gets another label.
        others: places of corrections at which a row has another text.
        renamed: the labels that ``data.label_map`` has found.
        schema: the Arrow schema of all splits, set by the first row: what is a list there is a list in every row.
    """

    splits: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] | None = None
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    inside: list[tuple[str, str, str]] = field(default_factory=list)
    listings: dict[str, list[str]] = field(default_factory=dict)
    corrections: dict[str, Correction] = field(default_factory=dict)
    corrected: dict[str, bool] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)
    schema: Any = None

    def place(self, split: str, file: int, line: int) -> str:
        """``file:line`` of a row, or the file alone if it holds a single text."""
        path = self.files[split][file]
        return self.listings[path][line - 1] if path in self.listings else f"{path}:{line}"


def load(data: dict[str, Any], only: str | None = None) -> Source:
    """Read the data that the ``data`` group of the config describes.

    Args:
        only: read no other split of a folder; None reads all, of which there must be ``train``.

    Raises:
        UserError: for anything that cannot be read, with file, line and remedy.
    """
    check_source(data)
    given = [(key, path.resolve()) for key in DATA_PATHS for path in named_by(data.get(key) or "")]
    for key, path in given:
        if others := [other for other, its in given if its == path and other != key]:
            raise UserError(f"{path}: data.{key} and data.{others[0]} name the same", "Leave it out of one of them.")
    source = load_path(data["path"], data, only) if data.get("path") else _load_hub(data)
    for split in ("validation", "test"):
        if place := data.get(f"{split}_path"):
            parts = files_of_one_split(place)
            # The format that is stated is that of data.path, which need not be theirs.
            alike = parts[0].suffix == Path(str(data.get("path"))).suffix or kind_of_name(parts[0], data) is None
            _read(source, split, parts, data if alike else {**data, "format": None})
    return source


def load_path(place: str | Path, data: dict[str, Any], only: str | None = None) -> Source:
    """Read files, or a folder with a file or folder for each split."""
    folder = Path(place).expanduser()
    files = split_files(folder, data, only) if folder.is_dir() else {"all": files_of_one_split(place)}
    if "all" in files and (data.get("validation_path") or data.get("test_path")):
        files = {"train": files["all"]}
    source = Source(corrections=read_corrections(data.get("corrections")))
    for split, parts in files.items():
        _read(source, split, parts, data)
    first = next(iter(files.values()))[0]
    if kind_of(first, data) == "parquet":
        with formats.open_parquet(first) as file:
            _, labels, _ = named_columns(file.schema_arrow.names, options(data), first)
            source.names = class_names(file.schema_arrow, labels)
    return source


def _read(source: Source, split: str, parts: Sequence[Path], data: dict[str, Any]) -> None:
    """Read the files, or aclImdb folders, of a split."""
    source.files[split] = [str(part) for part in parts]
    folders = [part for part in parts if part.is_dir()]
    source.listings |= {str(folder): [str(text) for text in formats.folder_texts(folder)] for folder in folders}
    kinds = [kind_of(part, data) for part in parts]
    for column, what in BY_NAME.items():
        by_name = isinstance(data.get(column), list) or (column == "group_column" and data.get(column) is not None)
        if by_name and (flat := WITHOUT_COLUMNS.intersection(kinds)):
            problem = f"data.{column}={data[column]}: the format {min(flat)} has no columns with names"
            kind = NoGroups if column == "group_column" else UserError
            raise kind(f"{parts[0]}: {problem}", f"Write {what} as csv, tsv, jsonl or parquet.")
    rows = (
        (number, row)
        for number, (part, kind) in enumerate(zip(parts, kinds, strict=True))
        for row in formats.READERS[kind](part, options(data))
    )
    source.splits[split] = _table(source, split, rows, data)
    if "parquet" not in kinds:  # of which no encoding can be given
        skipped = [problem for own, _, problem in source.skipped if own == split]
        undecodable, total = sum(NOT_UTF8 in problem for problem in skipped), len(source.splits[split]) + len(skipped)
        check_undecodable(", ".join(source.files[split]), undecodable, total, "data.")


def options(data: dict[str, Any], **others: Any) -> Options:
    """The reader options within the ``data`` group, and others."""
    stated = {one.name: data[one.name] for one in fields(Options) if data.get(one.name) is not None}
    return Options(**{"tokens": data.get("task") == "token", **stated, **others})


def _load_hub(data: dict[str, Any]) -> Source:
    name, config = data["hub"], data.get("hub_config")
    go_offline_if_unreachable()
    import datasets
    from huggingface_hub.constants import is_offline_mode

    datasets.disable_progress_bars()
    source = Source(corrections=read_corrections(data.get("corrections")))
    try:
        loaded = datasets.load_dataset(name, config, revision=data.get("revision"))
    except Exception as error:  # whatever the many back ends of datasets raise
        problem = f"data.hub={name}: "
        if is_offline_mode():
            problem += "the Hub cannot be reached and the local cache does not hold it"
        else:
            problem += f"cannot be loaded: {error}"
        sample = "conll2003_sample" if data.get("task") == "token" else "emotion_sample"
        raise UserError(problem, WAYS_OUT.format(key="data.path", sample=sample)) from None
    # A split with exactly the usual name comes before one that contains it (test before test_extra).
    for split_name, dataset in sorted(loaded.items(), key=lambda item: str(item[0]).lower() not in SPLIT_NAMES):
        split = split_of(str(split_name))
        if split is None or split in source.splits or data.get(f"{split}_path"):  # such as unsupervised splits
            log.info("%s: the split %s is not used.", name, split_name)
            continue
        named = named_columns(dataset.column_names, options(data), name)
        labels = named[1]
        if split != "train" and _unlabelled(dataset, labels[0]):
            log.warning("%s: the labels of %s are all -1, that is, not public; it is not used.", name, split_name)
            continue
        source.names = class_names(dataset.features.arrow_schema, labels)
        source.files[split] = [f"{name}/{split_name}"]
        rows = formats.typed_rows(dataset.features.arrow_schema, named, options(data), partial(_hub_rows, dataset))
        source.splits[split] = _table(source, split, ((0, row) for row in rows), data)
    if "train" not in source.splits:
        raise UserError(f"data.hub={name}: no split train; it has: {', '.join(map(str, loaded))}", "Use another.")
    return source


def _unlabelled(dataset: Any, label: str) -> bool:
    """Whether all labels are -1, the mark of test splits whose labels are not public."""
    import datasets

    return isinstance(dataset.features[label], datasets.ClassLabel) and dataset.unique(label) == [-1]


def _hub_rows(dataset: Any, columns: list[str]) -> Iterator[tuple[int, Sequence[Any]]]:
    """The rows of a data set of the Hub, numbered from 1."""
    batches = dataset.select_columns(columns).iter(batch_size=CHUNK)
    return enumerate(chain.from_iterable(zip(*map(batch.get, columns), strict=True) for batch in batches), start=1)


def _table(source: Source, split: str, rows: Iterable[tuple[int, Row | Bad]], data: dict[str, Any]) -> Any:
    """Check every row and collect the usable ones."""
    import pyarrow as pa

    chunks: list[Any] = []
    held: list[dict[str, Any]] = []
    given = data.get("label_names") or []
    behind_numbers = given and not any(str(name).isdigit() for name in given)
    several = data.get("task") == "multi_label"
    names = label_map(data)
    columns = isinstance(data.get("label_column"), list)
    for file, raw in rows:
        if columns and isinstance(raw, Row) and isinstance(raw.label, dict):
            source.names = source.names or list(raw.label)
            raw = ticked(raw)
        several = several or (isinstance(raw, Row) and isinstance(raw.label, dict))
        if behind_numbers and isinstance(raw, Row) and isinstance(raw.text, list):
            raw = raw._replace(label=name_of(_numbers(raw.label), given))  # before tags are converted to IOB2
        row = checked(raw, data.get("label_separator"), bool(data.get("clean_html")), given)
        if isinstance(row, Row):
            if several and isinstance(row.label, str):  # as Label Studio writes a single choice beside lists of them
                row = row._replace(label=[row.label])
            if behind_numbers and (names or source.corrections):
                row = row._replace(label=name_of(_numbers(row.label), given))
            row = _as_told(row, split, file, source, names) if names or source.corrections else row
        if isinstance(row, Row):
            row = _shaped(row, source, data.get("group_column") is not None)
        elif row.problem == NO_LABEL and source.schema and _several(source.schema):
            row = Bad(row.line, f"{row.problem}; [] says that a text has none")
        if isinstance(row, Bad):
            place = source.place(split, file, row.line)
            if data.get("on_bad_row") != "skip" and not row.meant:
                remedy = "Say what the file is (data.encoding=cp1252)" if NOT_UTF8 in row.problem else "Fix the row"
                raise UserError(f"{place}: {row.problem}", f"{remedy}, or leave such rows out: data.on_bad_row=skip.")
            source.skipped.append((split, place, row.problem))
            continue
        source.inside += [(split, source.place(split, file, row.line), part) for part in row.inside]
        held.append({"text": row.text, "label": row.label, "line": row.line, "file": file, "group": row.group})
        if len(held) == CHUNK:
            chunks.append(pa.Table.from_pylist(held, schema=source.schema))
            held = []
    if held:
        chunks.append(pa.Table.from_pylist(held, schema=source.schema))
    if not chunks:
        where = ", ".join(source.files[split])
        skipped = [problem for own, _, problem in source.skipped if own == split]
        left = f"; all {len(skipped)} were skipped, the last since {skipped[-1]}" if skipped else ""
        raise UserError(f"{where}: no rows{left}", "Check its path, and data.format.")
    return dataset_of(pa.concat_tables(chunks))


def _as_told(row: Row, split: str, file: int, source: Source, names: Mapping[str, str | None]) -> Row | Bad:
    """A row with the label that ``data.corrections`` gives it, under the name that ``data.label_map`` does."""
    before = renamed(row, names, source.renamed)
    place = short_place(source.place(split, file, row.line)) if source.corrections else ""
    if not (own := source.corrections.get(place)):
        return before
    if (after := corrected(row, own)) is None:  # in a file of the same name in another folder, or since it has changed
        source.others.add(place)
        return before
    after = renamed(after, names, source.renamed) if isinstance(after, Row) else after
    source.corrected[place] = isinstance(after, Row) and after != before
    return after


def _shaped(row: Row, source: Source, grouped: bool) -> Row | Bad:
    """A row with the schema of the first one, or what is wrong with it; the first row sets the schema."""
    shape = _schema(row, grouped)
    source.schema = source.schema or shape
    if shape == source.schema:
        return row
    column = "text" if shape.field("text") != source.schema.field("text") else "label"
    is_list = isinstance(getattr(row, column), list)
    problem = f"the {column} is {'a list' if is_list else 'no list'}, unlike in earlier rows"
    if column == "text" and is_list:  # an empty list of character spans looks like one of labels
        problem += " (of words with tags? then say data.task=token)"
    elif column == "label" and isinstance(row.text, str):
        problem += " (several labels? then say data.task=multi_label)"
    return Bad(row.line, problem)


def _numbers(label: Any) -> Any:
    """A label, or each of several, as it stands in a row; numbers that are text, as in columns, as numbers."""
    if isinstance(label, list):
        return [_numbers(one) for one in label]
    return int(label) if isinstance(label, str) and label.isdecimal() else label


def _schema(row: Row, grouped: bool) -> Any:
    """The Arrow schema of a row: text and label are either lists or strings, and the same in every row of a split."""
    import pyarrow as pa

    text, label = (pa.list_(pa.string()) if isinstance(value, list) else pa.string() for value in (row.text, row.label))
    group = {"group": pa.string()} if grouped else {}  # what a schema does not name is left out
    return pa.schema({"text": text, "label": label, "line": pa.int64(), "file": pa.int32(), **group})


def _several(schema: Any) -> bool:
    """Whether rows of a schema are texts with several labels each."""
    import pyarrow as pa

    return pa.types.is_list(schema.field("label").type) and not pa.types.is_list(schema.field("text").type)

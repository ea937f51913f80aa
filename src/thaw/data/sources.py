"""Hub, folder or file -> splits of one schema: columns ``text``, ``label``, ``line`` and ``file``.

``text`` is a string, or a list of words for token tasks. ``label`` is always text, or a list of texts: numbers become
text here and ids later, once all labels of the training split are known.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thaw.data import formats
from thaw.data.cleaning import clean_html
from thaw.data.formats import Bad, Options, Row
from thaw.errors import UserError
from thaw.hub import WAYS_OUT, go_offline_if_unreachable

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("val", "valid", "validation", "dev", "testa"), "validation"),
    **dict.fromkeys(("test", "testb"), "test"),
}
CHUNK = 10_000  # rows held as Python objects before they become Arrow


@dataclass
class Source:
    """What was found.

    Args:
        splits: ``datasets.Dataset`` for each of train, validation, test that exists, or the one split ``all``.
        files: the files of each split, as shown in messages; a row's ``file`` is a position in this list.
        names: label names that the data itself states (ClassLabel).
        skipped: rows left out, as (split, place, problem).
    """

    splits: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] | None = None
    skipped: list[tuple[str, str, str]] = field(default_factory=list)

    def place(self, split: str, row: dict[str, Any]) -> str:
        """``file:line`` of a row."""
        return f"{self.files[split][row['file']]}:{row['line']}"


def load(data: dict[str, Any]) -> Source:
    """Read the data that the ``data`` group of the config describes.

    Raises:
        UserError: for anything that cannot be read, with file, line and remedy.
    """
    if data.get("path"):
        return load_path(Path(str(data["path"])).expanduser(), data)
    if data.get("hub"):
        return _load_hub(data)
    raise UserError("data.path is missing", f"Say where the data is: data={data.get('format') or 'csv'} data.path=...")


def load_path(path: Path, data: dict[str, Any]) -> Source:
    """Read a file, or a folder that holds a file or folder for each split."""
    tokens = data.get("task") == "token"
    if not path.exists():
        raise UserError(f"{path}: no such file or folder", "Check data.path.")
    files = {"all": [path]} if path.is_file() else _split_files(path, data.get("format"), tokens)
    source = Source()
    for split, parts in files.items():
        source.files[split] = [str(part) for part in parts]
        rows = (
            (number, row)
            for number, part in enumerate(parts)
            for row in formats.READERS[_format(part, data, tokens)](part, options(data))
        )
        source.splits[split] = _table(source, split, rows, data)
    source.names = _names_in_parquet(files, data)
    return source


def options(data: dict[str, Any], needs_label: bool = True) -> Options:
    """The reader options within the ``data`` group."""
    return Options(
        text_column=data.get("text_column"),
        label_column=data.get("label_column"),
        separator=data.get("separator") or ";",
        quoting=data.get("quoting") or "minimal",
        header=data.get("header", True),
        needs_label=needs_label,
    )


def _format(path: Path, data: dict[str, Any], tokens: bool) -> str:
    if path.is_dir():
        return "folder"
    stated = data.get("format")
    kind = stated or formats.format_of(path, tokens)
    if kind not in formats.READERS or kind == "folder":
        what = f"data.format={stated} is not known" if stated else "the format is not clear from the name"
        known = ", ".join(kind for kind in formats.READERS if kind != "folder")
        raise UserError(f"{path}: {what}", f"Set data.format to one of: {known}.")
    return kind


def _split_files(folder: Path, stated: str | None, tokens: bool) -> dict[str, list[Path]]:
    """The files, or aclImdb folders, of each split; of several formats the first that has a training split."""
    found: dict[str, dict[str, list[Path]]] = {}
    for entry in sorted([*folder.iterdir(), *folder.glob("*/*.parquet")]):
        split = split_of(entry.name)
        if split is None or entry.name.startswith("."):
            continue
        if entry.is_dir():
            kind = "folder" if any(inner.is_dir() for inner in entry.iterdir()) else None
        else:
            kind = formats.format_of(entry, tokens) or ("conll" if tokens else None)
            if stated is not None and kind in (None, "txt", "conll", stated):
                kind = stated
        if kind is not None and stated in (None, kind):
            found.setdefault(kind, {}).setdefault(split, []).append(entry)
    for kind in formats.READERS:
        if "train" in found.get(kind, {}):
            files = found[kind]
            if set(files) == {"train"} and len(files["train"]) == 1 and kind != "folder":
                return {"all": files["train"]}
            return {split: files[split] for split in SPLITS if split in files}
    names = sorted(entry.name for entry in folder.iterdir())[:8]
    raise UserError(
        f"{folder}: no training split{f' in the format {stated}' if stated else ''}; it holds: {', '.join(names)}",
        "Name the files train.*, validation.* and test.* (.txt .csv .tsv .jsonl .parquet .conll, or .gz of these).",
    )


def split_of(name: str) -> str | None:
    """The split that a file or folder name states: ``train.txt``, ``emotion_val.csv``, ``eng.testa``."""
    for part in re.split(r"[._\-]", name.lower()):
        if part in SPLIT_NAMES:
            return SPLIT_NAMES[part]
    return None


def _names_in_parquet(files: dict[str, list[Path]], data: dict[str, Any]) -> list[str] | None:
    first = next(iter(files.values()))[0]
    if first.suffix != ".parquet":
        return None
    import pyarrow.parquet as pq

    schema = pq.read_schema(first)
    label = formats.find_column(schema.names, data.get("label_column"), formats.LABEL_COLUMNS, "label", first)
    return formats.class_names(schema, label)


def _load_hub(data: dict[str, Any]) -> Source:
    name, config = data["hub"], data.get("hub_config")
    go_offline_if_unreachable()
    import datasets
    from huggingface_hub.constants import is_offline_mode

    datasets.disable_progress_bars()
    source = Source()
    try:
        loaded = datasets.load_dataset(name, config, revision=data.get("revision"))
    except Exception as error:  # datasets raises what its many back ends raise
        problem = f"data.hub={name}: "
        if is_offline_mode():
            problem += "the Hub cannot be reached and the local cache does not hold it"
        else:
            problem += f"cannot be loaded: {error}"
        raise UserError(problem, WAYS_OUT.format(key="data.path")) from None
    for split_name, dataset in loaded.items():
        split = split_of(split_name)
        if split is None:  # unsupervised splits, say, whose labels are all -1
            continue
        columns = dataset.column_names
        text = formats.find_column(columns, data.get("text_column"), formats.TEXT_COLUMNS, "text", name)
        label = formats.find_column(columns, data.get("label_column"), formats.LABEL_COLUMNS, "label", name)
        source.names = formats.class_names(dataset.features.arrow_schema, label)
        source.files[split] = [f"{name}/{split_name}"]
        rows = ((0, row) for row in _hub_rows(dataset, text, label, source.names))
        source.splits[split] = _table(source, split, rows, data)
    return source


def _hub_rows(dataset: Any, text: str, label: str, names: list[str] | None) -> Iterator[Row]:
    line = 0
    for batch in dataset.select_columns([text, label]).iter(batch_size=CHUNK):
        for one, other in zip(batch[text], batch[label], strict=True):
            line += 1
            yield Row(line, one, formats.name_of(other, names))


def _table(source: Source, split: str, rows: Iterable[tuple[int, Row | Bad]], data: dict[str, Any]) -> Any:
    """Check every row and gather those that can be used."""
    import datasets
    import pyarrow as pa

    skip = data.get("on_bad_row", "error")
    if skip not in ("error", "skip"):
        raise UserError(f"data.on_bad_row={skip} is not known", "Choose error or skip.")
    chunks: list[Any] = []
    held: list[dict[str, Any]] = []
    schema: Any = None
    for file, raw in rows:
        row = _checked(raw, data.get("label_separator"), bool(data.get("clean_html")))
        if isinstance(row, Row):
            shape = _schema(row)
            schema = schema or shape
            if shape != schema:
                row = Bad(row.line, "a list where earlier rows have a plain value, or the other way round")
        if isinstance(row, Bad):
            place = f"{source.files[split][file]}:{row.line}"
            if skip == "error":
                raise UserError(
                    f"{place}: {row.problem}", "Mend the row, or leave such rows out: data.on_bad_row=skip."
                )
            source.skipped.append((split, place, row.problem))
            continue
        held.append({"text": row.text, "label": row.label, "line": row.line, "file": file})
        if len(held) == CHUNK:
            chunks.append(pa.Table.from_pylist(held, schema=schema))
            held = []
    if held:
        chunks.append(pa.Table.from_pylist(held, schema=schema))
    if not chunks:
        where = ", ".join(source.files[split])
        raise UserError(f"{where}: the split {split} has no rows", "Check data.path and data.format.")
    return datasets.Dataset(pa.concat_tables(chunks))


def _schema(row: Row) -> Any:
    """The Arrow schema of a row: what may be a list is one, or is not, in every row of a split."""
    import pyarrow as pa

    text, label = (pa.list_(pa.string()) if isinstance(value, list) else pa.string() for value in (row.text, row.label))
    return pa.schema({"text": text, "label": label, "line": pa.int64(), "file": pa.int32()})


def _checked(row: Row | Bad, separator: str | None, clean: bool) -> Row | Bad:
    if isinstance(row, Bad):
        return row
    text = clean_html(row.text) if clean and isinstance(row.text, str) else row.text
    if isinstance(text, list):
        if not text or not all(isinstance(word, str) and word.strip() for word in text):
            return Bad(row.line, "a word is empty or not text" if text else "the sentence has no words")
    elif not isinstance(text, str):
        return Bad(row.line, f"the text is {'missing' if text is None else f'a {type(text).__name__}, not a string'}")
    elif not text.strip():
        return Bad(row.line, "the text is empty")
    label = _plain(row.label, separator)
    if label is None or label == "":
        return Bad(row.line, "the label is missing")
    if isinstance(text, list) and (not isinstance(label, list) or len(label) != len(text)):
        given = len(label) if isinstance(label, list) else 1
        return Bad(row.line, f"{given} tags for {len(text)} words")
    return Row(row.line, text, label)


def _plain(label: Any, separator: str | None) -> Any:
    """A label as text: 1, 1.0 and "1" are the same; a list, or a text with separators, becomes a list."""
    if isinstance(label, list | tuple):
        plain = [_plain(item, None) for item in label]
        return None if any(item is None or item == "" for item in plain) else plain
    if isinstance(label, float):
        return str(int(label)) if label.is_integer() else None if label != label else str(label)
    if label is None:
        return None
    text = str(label).strip()
    return [part.strip() for part in text.split(separator) if part.strip()] if separator else text

"""Which files of a folder hold which split, and in which format."""

import re
from pathlib import Path
from typing import Any

from thaw.data import formats
from thaw.data.splits import SPLITS
from thaw.errors import UserError
from thaw.files import named_by

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "testa"), "validation"),
    **dict.fromkeys(("test", "testb"), "test"),
}
HASH = re.compile(r"(?<=-of-\d{5})-[0-9a-f]{16}")  # in the names of shards that older push_to_hub versions wrote


def split_of(name: str) -> str | None:
    """The split that a file or folder name implies: ``train.txt``, ``emotion_val.csv``, ``eng.testa``."""
    parts = re.split(r"[._\-]", name.lower())
    return next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), None)


def kind_of_name(path: Path, data: dict[str, Any]) -> str | None:
    """The format that the name of a file implies."""
    tokens = data.get("task") == "token"
    return formats.format_of(path, tokens) or ("conll" if tokens else None)


def kind_of(path: Path, data: dict[str, Any]) -> str:
    """The format of a file or folder: the stated one, or that which its name implies.

    Raises:
        UserError: when there is none that thaw reads.
    """
    if path.is_dir():
        return "folder"
    stated = data.get("format")
    kind = "jsonl" if stated == "json" else stated or kind_of_name(path, data)
    if kind is None:
        formats.check_no_workbook(path)
        known = ", ".join(kind for kind in formats.READERS if kind != "folder")
        raise UserError(f"{path}: the format is not clear from the name", f"Set data.format to one of: {known}.")
    return kind


def files_of_one_split(place: str | Path) -> list[Path]:
    """The file of a name, or the files of a pattern; or an aclImdb folder.

    Raises:
        UserError: when their names say that they are of several splits, or a folder has none for each label.
    """
    found = named_by(place)
    if found[0].is_dir() and not any(inner.is_dir() for inner in found[0].iterdir()):
        raise UserError(f"{place}: a folder without one for each label", "Give a file, or a pattern of several.")
    names = {split_of(path.name): path.name for path in found}
    if len(names) > 1 and (odd := names.keys() & {"validation", "test"}):
        split = min(map(str, odd))
        raise UserError(
            f"{place}: {names[split]} is named for {split}, and others are not",
            "Give their folder as data.path, or one of them as data.path, another as data.test_path.",
        )
    return found


def split_files(folder: Path, data: dict[str, Any], only: str | None) -> dict[str, list[Path]]:
    """The files, or aclImdb folders, of each split; if there are several formats, the first that has the split needed.

    The layout of the Hub is supported: sharded files in ``data/`` or in a folder for each config. Splits that have a
    path of their own, ``test_path`` say, are left out.

    Args:
        only: the one split that is needed; None wants all, and among them ``train``.
    """
    needs, stated, config = only or "train", data.get("format"), data.get("hub_config")
    if config and (folder / str(config)).is_dir():
        folder = folder / str(config)
    apart = {split for split in SPLITS if data.get(f"{split}_path")}
    found = _by_format(folder, stated, data.get("task") == "token", apart)
    kind = next((kind for kind in formats.READERS if needs in found.get(kind, {})), None)
    if kind is None:
        names = sorted(entry.name for entry in folder.iterdir())[:8] or ["nothing"]
        raise UserError(
            f"{folder}: no split {needs}{f' in the format {stated}' if stated else ''}; it holds: {', '.join(names)}",
            "Name the files train.*, validation.* and test.* (.txt .csv .tsv .jsonl .json .parquet .conll, or .gz of "
            "these), or give a single file, or several of one split: 'folder/*.csv'.",
        )
    files = found[kind]
    if only:
        _check_shards(folder, only, files[only])
        return {only: files[only]}
    if others := [parts[0].name for own in found.values() for split, parts in own.items() if split not in files]:
        raise UserError(
            f"{folder}: {others[0]} has another format than {files[needs][0].name}",
            "Use one format, or choose the files with data.format.",
        )
    for split, parts in files.items():
        _check_shards(folder, split, parts)
    if set(files) == {"train"} and len(files["train"]) == 1 and kind != "folder":
        return {"all": files["train"]}
    return {split: files[split] for split in SPLITS if split in files}


def _by_format(folder: Path, stated: str | None, tokens: bool, apart: set[str]) -> dict[str, dict[str, list[Path]]]:
    """The files of each format, or of the stated one, by the split that their names imply, without splits apart."""
    found: dict[str, dict[str, list[Path]]] = {}
    unclear: dict[str, list[Path]] = {}
    for entry in sorted({*folder.iterdir(), *folder.glob("data/*"), *folder.glob("*/*.parquet")}):
        split = split_of(entry.name)
        if split is None or split in apart or entry.name.startswith("."):
            continue
        if entry.is_dir():
            kind = "folder" if any(inner.is_dir() for inner in entry.iterdir()) else None
        else:
            kind = formats.format_of(entry, tokens)
        if kind is not None and stated in (None, kind):
            found.setdefault(kind, {}).setdefault(split, []).append(entry)
        elif kind in (None, "txt", "conll") and entry.is_file():
            unclear.setdefault(split, []).append(entry)
    # Names such as eng.train or test.txt do not imply a format; they take the stated one if no other file fits.
    if assumed := stated or ("conll" if tokens else None):
        for split, entries in unclear.items():
            found.setdefault(assumed, {}).setdefault(split, entries)
    return found


def _check_shards(folder: Path, split: str, parts: list[Path]) -> None:
    """Refuse several files for a split unless they are shards: in one folder, their names differing only in numbers."""
    plain = {part.with_name(HASH.sub("", part.name)) for part in parts}
    if len(plain) < len(parts) or len({(part.parent, re.sub(r"\d+", "", part.name)) for part in plain}) > 1:
        raise UserError(
            f"{folder}: several files for {split}: {', '.join(str(part.relative_to(folder)) for part in parts)}",
            "Move those you do not mean elsewhere, or give their folder as data.path.",
        )

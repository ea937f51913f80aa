"""Splits, subsets, duplicates and leaks: pure functions of rows and a seed."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from thaw.data.rows import Values, dataset_of
from thaw.data.stratified import hold_out, hold_out_groups, linked, stratified_folds, stratified_group_folds
from thaw.errors import UserError, counted
from thaw.labels import LabelSet

SPLITS = ("train", "validation", "test")
GROUP = "group"  # the column, if there is one
FEW = 10  # rows, of which nothing can be said but that they are few
LINES = 2**40  # more than a file has
SUBSET_SEED = 42  # the seed of the tutorials whose subsets we reproduce; not the seed of the run


def subset(dataset: Any, size: int | float | None, key: str) -> Any:
    """The rows that ``dataset.shuffle(seed=42).select(range(n))`` picks, as tutorials write it.

    Args:
        dataset: a ``datasets.Dataset``.
        size: rows, or a fraction of them; None for all.
        key: the config key, for the error message.

    Raises:
        UserError: when more rows are asked for than there are, or fewer than one.
    """
    if size is None:
        return dataset
    count = check_size(size, len(dataset), key)
    return dataset.shuffle(seed=SUBSET_SEED).select(range(count))


def check_size(size: int | float, total: int, key: str) -> int:
    """Turn a number or fraction of rows into a number, or refuse it."""
    count = max(1, round(size * total)) if isinstance(size, float) else size
    if not 0 < count <= total:
        raise UserError(f"{key}={size}, but there are {total} rows", f"Give 1 to {total}, or a fraction.")
    return count


def duplicated(keys: np.ndarray) -> np.ndarray:
    """Whether each text occurs more than once."""
    _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[places] > 1)


def repeated(keys: np.ndarray) -> int:
    """Rows whose text stands earlier in the same split, by a hash of each text."""
    return len(keys) - len(np.unique(keys))


def shared(keys: np.ndarray, other: np.ndarray) -> int:
    """Rows of the first split whose text also stands in the other."""
    return int(np.isin(keys, other).sum())


def groups_in(rows: Any) -> tuple[set[str], int]:
    """The groups of some rows, and how many rows have none, each of which counts as one."""
    names = rows[GROUP][:]
    return {name for name in names if name is not None}, sum(name is None for name in names)


def divide(found: dict[str, Any], labels: LabelSet, data: dict[str, Any], where: str) -> dict[str, Any]:
    """Train, validation and test from the splits that were found.

    A single split is divided 70/15/15, or as ``validation_size`` and ``test_size`` say. A missing validation is held
    out of train: of the rows that a whole ``train_size`` leaves over, so that a tutorial's training subset stays
    exactly the same rows. A missing test is held out of train only if ``test_size`` asks for it. Either way texts that
    occur more than once stay in train, or together, and where rows have a group, whole groups are held out. With
    ``fold``, test is that part of the single split or of train, and shares no text or group with the others.
    """
    whole = found["all"] if "all" in found else found["train"]
    if labels.task == "token" and len(whole) == 1 and "validation" not in found:
        raise UserError(
            f"{where}: a single sentence of {counted(len(whole[0]['text']), 'word')}",
            "Blank lines divide sentences in CoNLL columns; other formats have a row for each.",
        )
    if data.get("fold"):
        found = _with_fold_as_test(whole, labels, data)
    if "all" in found:
        parts = _in_three(whole, labels, data)
    else:
        if data.get("test_size") and "test" not in found:
            found = {**found, **_test_from_train(whole, labels, data)}
        parts = {name: found[name] for name in SPLITS if name in found}
        if "validation" in parts:
            parts["train"] = subset(parts["train"], data.get("train_size"), "data.train_size")
        else:
            parts["train"], parts["validation"] = _validation_from_train(parts["train"], labels, data)
    _require_rows(parts, labels, where)
    eval_size = data.get("eval_size")
    for name in ("validation", "test"):
        if name in parts and eval_size is not None and not (name == "test" and data.get("fold")):
            size = min(eval_size, len(parts[name])) if isinstance(eval_size, int) else eval_size
            parts[name] = subset(parts[name], size, "data.eval_size")
    return {name: parts[name] for name in SPLITS if name in parts}


def _in_three(rows: Any, labels: LabelSet, data: dict[str, Any]) -> dict[str, Any]:
    """A single split divided into train, validation and, unless ``test_size`` is 0, test."""
    seed, validation_size, test_size = data["split_seed"], data["validation_size"], data.get("test_size")
    keys = _keys(rows)
    again = duplicated(keys)
    rest, test = np.arange(len(rows)), np.empty(0, dtype=np.int64)
    if test_size != 0:
        held = 0.15 if test_size is None else check_size(test_size, len(rows), "data.test_size")
        rest, test = _hold_out(rows, labels, held, seed, keys, again)
    others = _some(rows, rest)
    size: int | float = 0.15 / 0.85  # of the others
    if validation_size or test_size is not None:
        size = check_size(validation_size or 0.15, len(rows), "data.validation_size")
        _require_training(len(rows), size, len(test), data)
    train, validation = _hold_out(others, labels, size, seed, keys[rest], again[rest])
    return {
        "train": subset(_some(others, train), data.get("train_size"), "data.train_size"),
        "validation": _some(others, validation),
        **({} if test_size == 0 else {"test": _some(rows, test)}),
    }


def _test_from_train(rows: Any, labels: LabelSet, data: dict[str, Any]) -> dict[str, Any]:
    size = check_size(data["test_size"], len(rows), "data.test_size")
    keys = _keys(rows)
    _require_training(len(rows), 0, size, data)
    rest, test = _hold_out(rows, labels, size, data["split_seed"], keys, duplicated(keys))
    return {"train": _some(rows, rest), "test": _some(rows, test)}


def _require_training(total: int, validation: int, test: int, data: dict[str, Any]) -> None:
    """Refuse sizes of what is held out that leave no row to train on."""
    if validation + test >= total:
        sizes = " and ".join(f"data.{key}={data[key]}" for key in ("validation_size", "test_size") if data.get(key))
        raise UserError(f"{sizes}: of {counted(total, 'row')} none is left to train on", "Set less.")


def _require_rows(parts: dict[str, Any], labels: LabelSet, where: str) -> None:
    """Refuse data of which a part is empty."""
    for name in (name for name, rows in parts.items() if not len(rows)):
        total = sum(map(len, parts.values()))
        if GROUP in parts["train"].column_names:
            raise UserError(
                f"{where}: too few groups to divide: {name} is empty, since groups stay whole and the last rows of a "
                "label stay in training",
                f"Check data.group_column, or give a file for {name}.",
            )
        if labels.task != "token" and total >= FEW and len(labels) > 0.9 * total:
            raise UserError(
                f"{where}: {counted(len(labels), 'label')} in {counted(total, 'row')}: too many labels to divide them",
                "Check data.label_column, or give more rows.",
            )
        raise UserError(
            f"{where}: too few rows to divide: {name} is empty, since the last row of a label stays in training",
            f"Give more rows, or a file for {name}.",
        )


def _with_fold_as_test(rows: Any, labels: LabelSet, data: dict[str, Any]) -> dict[str, Any]:
    if data["fold"] > data["folds"]:
        raise UserError(f"data.fold={data['fold']}, but data.folds={data['folds']}", f"Give 1 to {data['folds']}.")
    grouped = GROUP in rows.column_names
    divided = stratified_group_folds if grouped else stratified_folds
    folds = divided(_strata(rows, labels), data["folds"], data["split_seed"], _keys(rows))
    here = folds == data["fold"] - 1
    if (most := folds.max() + 1) < data["folds"]:
        what = "groups that share no text" if grouped else "different texts"
        raise UserError(f"data.folds={data['folds']}, but there are {most} {what}", "Set fewer.")
    # Each fold holds validation rows of its own out of the others: on the same ones their scores would be correlated.
    return {"train": _some(rows, np.flatnonzero(~here)), "test": _some(rows, np.flatnonzero(here))}


def _validation_from_train(rows: Any, labels: LabelSet, data: dict[str, Any]) -> tuple[Any, Any]:
    total, seed = len(rows), data["split_seed"]
    train_size, eval_size = data.get("train_size"), data.get("eval_size")
    key = "data.eval_size" if isinstance(eval_size, int) else "data.validation_size"
    wanted = eval_size if isinstance(eval_size, int) else data["validation_size"] or 0.1
    if GROUP in rows.column_names or (isinstance(train_size, float) and not isinstance(eval_size, int)):
        # A share, as of a learning curve, is of what is left: all shares are validated on the same rows. And of a group
        # of which some rows are trained on, none can be held out.
        size = check_size(wanted, total, key)
        if size >= total:
            raise UserError(f"{key}={wanted}: of {counted(total, 'row')} none is left to train on", "Set less.")
        keys = _keys(rows)
        others, validation = _hold_out(rows, labels, size, seed, keys, duplicated(keys))
        return subset(_some(rows, others), train_size, "data.train_size"), _some(rows, validation)
    shuffled = subset(rows, total, "data.train_size") if train_size is not None else rows
    chosen = check_size(train_size, total, "data.train_size") if train_size is not None else total
    size = check_size(wanted, total if isinstance(eval_size, int) else chosen, key)
    train, left = shuffled.select(range(chosen)), total - chosen
    keys = _keys(shuffled)
    again = duplicated(keys)
    if left:
        if left < size:
            raise UserError(
                f"data.train_size={train_size} leaves {left} of {total} rows, and validation is to have {size}",
                "Give a validation file, or a smaller data.train_size, data.eval_size or data.validation_size.",
            )
        rest = shuffled.select(range(chosen, total))
        parts = rest, labels, size, seed, keys[chosen:], again[chosen:]
        held = _hold_out(*parts)[1] if size < left else range(left)
        return train, rest.select(held)
    if size >= chosen:
        raise UserError(
            f"{total} rows of train are too few to train on {chosen} and hold out {size} for validation",
            "Give a validation file, or a smaller data.eval_size or data.validation_size.",
        )
    kept, held = _hold_out(train, labels, size, seed, keys[:chosen], again[:chosen])
    return _some(train, kept), _some(train, held)


def _some(rows: Any, numbers: np.ndarray) -> Any:
    """Some of the rows, by sorted numbers; where they stand in a plain table, as one, which is read much faster."""
    if rows._indices is not None:
        return rows.select(numbers)
    import pyarrow as pa

    chosen = np.zeros(len(rows), dtype=bool)
    chosen[numbers] = True
    return dataset_of(rows.data.table.filter(pa.array(chosen)))


def _hold_out(
    rows: Any, labels: LabelSet, size: int | float, seed: int, keys: np.ndarray, again: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`hold_out` of rows with labels, or `hold_out_groups` if they have groups."""
    if GROUP in rows.column_names:
        return hold_out_groups(_strata(rows, labels), size, seed, keys)
    places = np.array(rows["file"][:], dtype=np.int64) * LINES + np.array(rows["line"][:], dtype=np.int64)
    return hold_out(_strata(rows, labels), size, seed, keys, again, places)


def _keys(rows: Any) -> np.ndarray:
    """The same for rows that are to stay together: those of the same text, or group."""
    keys = text_keys(Values(rows, "text"))
    return linked(keys, Values(rows, GROUP)) if GROUP in rows.column_names else keys


def _strata(rows: Any, labels: LabelSet) -> list[Any]:
    return rows["label"][:] if labels.task == "sequence" else [0] * len(rows)


def as_string(text: str | Sequence[str]) -> str:
    """A text, or the words of one, as a string that no other has."""
    return text if isinstance(text, str) else "\x00".join(text)


def text_keys(texts: Iterable[str | Sequence[str]]) -> np.ndarray:
    """A 64-bit hash of each text (of its words, for sentences given as words), blanks and case aside."""
    return np.fromiter((hash(" ".join(as_string(text).split()).casefold()) for text in texts), dtype=np.int64)


def rows_fingerprint(texts: Iterable[str | Sequence[str]], labels: Iterable[Any]) -> str:
    """A key that changes with any text, label or the order of the rows."""
    digest = hashlib.sha256()
    for text, label in zip(map(as_string, texts), labels, strict=True):
        digest.update(f"{len(text)} {text} {label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]


def places_fingerprint(rows: Any) -> str:
    """A key that changes with the places of rows, but not with their order, or with what is made of their texts."""
    places = np.array([rows["file"][:], rows["line"][:]], dtype=np.int64)
    return hashlib.sha256(places[:, np.lexsort(places)].tobytes()).hexdigest()[:12]

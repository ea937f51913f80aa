"""Stratified hold-outs, subsets, duplicates and leaks: pure functions of rows and a seed."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from thaw.data.rows import Values, dataset_of
from thaw.errors import UserError, counted
from thaw.labels import LabelSet

SPLITS = ("train", "validation", "test")
SUBSET_SEED = 42  # the seed of the tutorials whose subsets we reproduce; not the seed of the run


def hold_out(
    strata: Sequence[Hashable], size: int | float, seed: int, keys: np.ndarray, again: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into those kept and those held out, each label in proportion.

    Args:
        strata: the label of each row; give the same value everywhere to split without strata.
        size: rows to hold out, or the fraction of them.
        seed: of the draw.
        keys: the same for rows of the same text.
        again: whether the text of each row occurs in another one too. So that nothing is scored on what was trained on,
            such rows are held out only for want of others, and then all rows of a label with that text.

    Returns:
        Sorted row numbers (kept, held out). A label with a single row, or text, stays in the kept part.
    """
    total = len(strata)
    wanted = round(total * size) if isinstance(size, float) else size
    generator = np.random.default_rng(seed)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        groups[stratum].append(row)
    ordered = [generator.permutation(groups[stratum]) for stratum in sorted(groups, key=str)]
    ordered = [rows[_repeats_last(keys[rows], again[rows])] for rows in ordered]
    # Largest remainders: the parts add up to the wanted number, and no label gives more than all but one row.
    exact = np.array([len(rows) * wanted / total for rows in ordered])
    quota = np.minimum(np.floor(exact).astype(int), [len(rows) - 1 for rows in ordered])
    order = np.argsort(np.floor(exact) - exact, kind="stable")
    left = wanted - int(quota.sum())
    while left and (able := [i for i in order if quota[i] < len(ordered[i]) - 1]):
        quota[able[:left]] += 1
        left -= len(able[:left])
    whole = [_whole(keys[rows], n) for rows, n in zip(ordered, quota, strict=True)]
    taken = whole if any(whole) else quota  # all rows have the same text
    held = np.sort(np.concatenate([rows[:n] for rows, n in zip(ordered, taken, strict=True)]))
    return np.setdiff1d(np.arange(total), held), held


def _repeats_last(keys: np.ndarray, again: np.ndarray) -> np.ndarray:
    """The order of some rows in which those whose text occurs again are last, and rows of one text side by side."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return np.lexsort((first[group], again))


def _whole(keys: np.ndarray, n: int) -> int:
    """How many of the first rows to take, about n, so that no text is divided; not all."""
    if not 0 < n < len(keys) or keys[n - 1] != keys[n]:
        return n
    start, *_, last = np.flatnonzero(keys == keys[n])
    return int(start if n - start < last + 1 - n or last + 1 == len(keys) else last + 1)


def deal(strata: Sequence[Hashable], folds: int, seed: int, keys: np.ndarray) -> np.ndarray:
    """The fold of each row, from 0: about as many rows in each, each label in proportion, no text in two of them.

    Args:
        strata: the label of each row; give the same value everywhere to deal without strata.
        folds: how many.
        seed: of the draw.
        keys: the same for rows of the same text.
    """
    _, first, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    often = np.zeros(len(keys), dtype=np.int64)
    often[first] = counts
    order = np.random.default_rng(seed).permutation(np.sort(first))  # by place: hashes differ from process to process
    dealt = np.empty(len(keys), dtype=np.int64)
    dealt[sorted(order, key=lambda row: (str(strata[row]), -often[row]))] = np.arange(len(order)) % folds
    return dealt[first[group]]


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
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise UserError(f"{key}={size} is not a number", "Give rows (500) or a fraction (0.1).")
    if isinstance(size, float) and not 0 < size <= 1:
        raise UserError(f"{key}={size} is not a fraction between 0 and 1", "Give a whole number to count rows.")
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


def divide(found: dict[str, Any], labels: LabelSet, data: dict[str, Any], where: str) -> dict[str, Any]:
    """Train, validation and test from the splits that were found.

    A single split is divided 70/15/15, or as ``validation_size`` and ``test_size`` say. A missing validation is held
    out of train: of the rows that a whole ``train_size`` leaves over, so that a tutorial's training subset stays
    exactly the same rows. A missing test is held out of train only if ``test_size`` asks for it. Either way texts that
    occur more than once stay in train, or together. With ``fold``, test is that part of the single split or of train,
    and shares no text with the others.
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
    keys = text_keys(Values(rows, "text"))
    again = duplicated(keys)
    rest, test = np.arange(len(rows)), np.empty(0, dtype=np.int64)
    if test_size != 0:
        held = 0.15 if test_size is None else check_size(test_size, len(rows), "data.test_size")
        rest, test = hold_out(_strata(rows, labels), held, seed, keys, again)
    others = _some(rows, rest)
    size: int | float = 0.15 / 0.85  # of the others; not rounded from all rows, since earlier runs did not
    if validation_size or test_size is not None:
        size = check_size(validation_size or 0.15, len(rows), "data.validation_size")
    train, validation = hold_out(_strata(others, labels), size, seed, keys[rest], again[rest])
    parts = {
        "train": subset(_some(others, train), data.get("train_size"), "data.train_size"),
        "validation": _some(others, validation),
    }
    return parts if test_size == 0 else {**parts, "test": _some(rows, test)}


def _test_from_train(rows: Any, labels: LabelSet, data: dict[str, Any]) -> dict[str, Any]:
    size = check_size(data["test_size"], len(rows), "data.test_size")
    keys = text_keys(Values(rows, "text"))
    rest, test = hold_out(_strata(rows, labels), size, data["split_seed"], keys, duplicated(keys))
    return {"train": _some(rows, rest), "test": _some(rows, test)}


def _require_rows(parts: dict[str, Any], labels: LabelSet, where: str) -> None:
    """Refuse data of which a part is empty."""
    for name in (name for name, rows in parts.items() if not len(rows)):
        total = sum(map(len, parts.values()))
        if labels.task != "token" and len(labels) > 0.9 * total:
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
    folds = deal(_strata(rows, labels), data["folds"], data["split_seed"], text_keys(Values(rows, "text")))
    here = folds == data["fold"] - 1
    if folds.max() + 1 < data["folds"]:
        raise UserError(f"data.folds={data['folds']}, but there are {folds.max() + 1} different texts", "Set fewer.")
    # Each fold holds validation rows of its own out of the others: on the same ones their scores would be correlated.
    return {"train": _some(rows, np.flatnonzero(~here)), "test": _some(rows, np.flatnonzero(here))}


def _validation_from_train(rows: Any, labels: LabelSet, data: dict[str, Any]) -> tuple[Any, Any]:
    total, seed = len(rows), data["split_seed"]
    train_size, eval_size = data.get("train_size"), data.get("eval_size")
    if isinstance(train_size, float) and not isinstance(eval_size, int):
        # A share, as of a learning curve, is of what is left: all shares are validated on the same rows.
        size = check_size(data["validation_size"] or 0.1, total, "data.validation_size")
        keys = text_keys(Values(rows, "text"))
        others, validation = hold_out(_strata(rows, labels), size, seed, keys, duplicated(keys))
        return subset(_some(rows, others), train_size, "data.train_size"), _some(rows, validation)
    shuffled = subset(rows, total, "data.train_size") if train_size is not None else rows
    chosen = check_size(train_size, total, "data.train_size") if train_size is not None else total
    if eval_size is None or isinstance(eval_size, float):
        size = check_size(data["validation_size"] or 0.1, chosen, "data.validation_size")
    else:
        size = check_size(eval_size, total, "data.eval_size")
    train, left = shuffled.select(range(chosen)), total - chosen
    keys = text_keys(Values(shuffled, "text"))
    again = duplicated(keys)
    if left:
        if left < size:
            raise UserError(
                f"data.train_size={train_size} leaves {left} of {total} rows, and validation is to have {size}",
                "Give a validation file, or a smaller data.train_size, data.eval_size or data.validation_size.",
            )
        rest = shuffled.select(range(chosen, total))
        parts = _strata(rest, labels), size, seed, keys[chosen:], again[chosen:]
        held = hold_out(*parts)[1] if size < left else range(left)
        return train, rest.select(held)
    if size >= chosen:
        raise UserError(
            f"{total} rows of train are too few to train on {chosen} and hold out {size} for validation",
            "Give a validation file, or a smaller data.eval_size or data.validation_size.",
        )
    kept, held = hold_out(_strata(train, labels), size, seed, keys[:chosen], again[:chosen])
    return _some(train, kept), _some(train, held)


def _some(rows: Any, numbers: np.ndarray) -> Any:
    """Some of the rows, by sorted numbers; where they stand in a plain table, as one, which is read much faster."""
    if rows._indices is not None:
        return rows.select(numbers)
    import pyarrow as pa

    chosen = np.zeros(len(rows), dtype=bool)
    chosen[numbers] = True
    return dataset_of(rows.data.table.filter(pa.array(chosen)))


def _strata(rows: Any, labels: LabelSet) -> list[Any]:
    return list(rows["label"][:]) if labels.task == "sequence" else [0] * len(rows)


def as_string(text: str | Sequence[str]) -> str:
    """A text, or the words of one, as a string that no other has."""
    return text if isinstance(text, str) else "\x00".join(text)


def text_keys(texts: Iterable[str | Sequence[str]]) -> np.ndarray:
    """A 64-bit hash of each text (of its words, for sentences given as words)."""
    return np.fromiter(map(hash, map(as_string, texts)), dtype=np.int64)


def rows_fingerprint(texts: Iterable[str | Sequence[str]], labels: Iterable[Any]) -> str:
    """A key that changes with any text, label or the order of the rows."""
    digest = hashlib.sha256()
    for text, label in zip(map(as_string, texts), labels, strict=True):
        digest.update(f"{len(text)} {text} {label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]

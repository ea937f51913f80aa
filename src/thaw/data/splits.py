"""Stratified hold-outs, subsets, duplicates and leaks: pure functions of rows and a seed."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from thaw.errors import UserError

SUBSET_SEED = 42  # the seed of the tutorials whose subsets we reproduce; not the seed of the run


def hold_out(strata: Sequence[Hashable], size: int | float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into those kept and those held out, each label in proportion.

    Args:
        strata: the label of each row; give the same value everywhere to split without strata.
        size: rows to hold out, or the fraction of them.
        seed: of the draw.

    Returns:
        Sorted row numbers (kept, held out). A label with a single row stays in the kept part.
    """
    total = len(strata)
    wanted = round(total * size) if isinstance(size, float) else size
    generator = np.random.default_rng(seed)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        groups[stratum].append(row)
    ordered = [generator.permutation(groups[stratum]) for stratum in sorted(groups, key=str)]
    # Largest remainders: the parts add up to the wanted number, and no label gives more than all but one row.
    exact = np.array([len(rows) * wanted / total for rows in ordered])
    quota = np.minimum(np.floor(exact).astype(int), [max(len(rows) - 1, 0) for rows in ordered])
    for i in np.argsort(np.floor(exact) - exact, kind="stable"):
        if quota.sum() < wanted and quota[i] < len(ordered[i]) - 1:
            quota[i] += 1
    held = np.sort(np.concatenate([rows[:n] for rows, n in zip(ordered, quota, strict=True)]))
    return np.setdiff1d(np.arange(total), held), held


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


def repeated(texts: Sequence[Hashable]) -> int:
    """Rows whose text stands earlier in the same split."""
    return len(texts) - len(set(texts))


def shared(texts: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Rows of the first split whose text also stands in the other."""
    known = set(other)
    return sum(text in known for text in texts)

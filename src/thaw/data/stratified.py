"""Which rows are held out, and the folds that rows are divided into: pure functions of labels, keys and a seed.

Rows of one text are kept together, and with groups, such as the tickets of each customer, rows of one group too.
"""

import logging
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

HEAP = 0.2  # share of all rows from which on those that texts link to one another are worth a warning
log = logging.getLogger(__name__)


def first_rows(keys: np.ndarray) -> np.ndarray:
    """For each row the number of the first row with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def hold_out(
    strata: Sequence[Hashable], size: int | float, seed: int, keys: np.ndarray, again: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into those kept and those held out, each label in proportion.

    Args:
        strata: the label of each row; give the same value everywhere to split without strata.
        size: rows to hold out, or the fraction of them.
        seed: of the draw.
        keys: the same for rows of the same text.
        again: whether the text of each row occurs in another one too. So that nothing is scored on what was trained on,
            such rows are held out only for want of others, and then all rows with that text.
        places: of each row in the data, on which alone it depends which rows of a label are held out: these stay, but
            for a few, when others get another label, are left out, or are added at the end.

    Returns:
        Sorted row numbers (kept, held out). A label with a single row, or text, stays in the kept part.
    """
    own, strata = strata, [strata[row] for row in first_rows(keys)]  # a text of several labels counts as its first
    total = len(strata)
    wanted = round(total * size) if isinstance(size, float) else size
    draw = _draw(places, seed)[first_rows(keys)]
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata):
        groups[stratum].append(row)
    ordered = [np.array(groups[stratum]) for stratum in sorted(groups, key=str)]
    # Those whose text occurs again are last, and rows of one text side by side.
    ordered = [rows[np.lexsort((draw[rows], again[rows]))] for rows in ordered]
    # Largest remainders: the parts add up to the wanted number, and no label gives more than all but one row.
    exact = np.array([len(rows) * wanted / total for rows in ordered])
    quota = np.minimum(np.floor(exact).astype(int), [len(rows) - 1 for rows in ordered])
    order = np.argsort(np.floor(exact) - exact, kind="stable")
    left = wanted - int(quota.sum())
    while left and (able := [i for i in order if quota[i] < len(ordered[i]) - 1]):
        quota[able[:left]] += 1
        left -= len(able[:left])
    taken, owed = [], 0  # rows that a label gives too few, since no text is divided; the next one makes up for them
    for rows, n in zip(ordered, quota, strict=True):
        taken.append(_whole(keys[rows], min(max(int(n) + owed, 0), len(rows) - 1)))
        owed += int(n) - taken[-1]
    if wanted and not any(taken):  # too few for any text: the smallest one, then, unless it is half of its label
        copies = [int((keys[rows] == keys[rows[0]]).sum()) for rows in ordered]
        if able := [i for i, rows in enumerate(ordered) if copies[i] * 2 < len(rows)]:
            smallest = min(able, key=copies.__getitem__)
            taken[smallest] = copies[smallest]
        else:
            taken = quota.tolist()
    held = np.concatenate([rows[:n] for rows, n in zip(ordered, taken, strict=True)])
    lost = {*own} - {own[row] for row in np.setdiff1d(np.arange(total), held)}
    held = held[~np.isin(keys[held], [keys[row] for row in held if own[row] in lost])]
    return np.setdiff1d(np.arange(total), held), np.sort(held)


def _draw(places: np.ndarray, seed: int) -> np.ndarray:
    """A number for each place, as if drawn at random: the finalizer of SplitMix64 (Steele et al. 2014)."""
    bits = places.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


def _whole(keys: np.ndarray, n: int) -> int:
    """How many of the first rows to take, about n, so that no text is divided; not all."""
    if not 0 < n < len(keys) or keys[n - 1] != keys[n]:
        return n
    start, *_, last = np.flatnonzero(keys == keys[n])
    return int(start if n - start < last + 1 - n or last + 1 == len(keys) else last + 1)


def stratified_folds(strata: Sequence[Hashable], folds: int, seed: int, keys: np.ndarray) -> np.ndarray:
    """The fold of each row, from 0: about as many rows in each, each label in proportion, no text in two of them.

    Args:
        strata: the label of each row; give the same value everywhere to divide them without strata.
        folds: how many.
        seed: of the draw.
        keys: the same for rows of the same text.
    """
    first = first_rows(keys)
    often = np.bincount(first)
    order = np.random.default_rng(seed).permutation(np.unique(first))  # by place: hashes differ from process to process
    fold_of = np.empty(len(keys), dtype=np.int64)
    fold_of[sorted(order, key=lambda row: (str(strata[row]), -often[row]))] = np.arange(len(order)) % folds
    return fold_of[first]


def linked(texts: np.ndarray, groups: Iterable[str | None]) -> np.ndarray:
    """A key for each row that is the same for rows of the same group or text, also by way of other rows.

    Args:
        texts: the same for rows of the same text.
        groups: of each row; rows without one, None, are each a group of their own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[str | None, int] = {}
    group = np.fromiter((numbers.setdefault(name, len(numbers)) for name in groups), dtype=np.int64)
    rows = np.flatnonzero(group != numbers.get(None, -1))
    different, text = np.unique(texts, return_inverse=True)
    size = len(different) + len(numbers)
    graph = coo_array((np.ones(len(rows)), (text[rows], len(different) + group[rows])), shape=(size, size))
    keys = connected_components(graph, directed=False)[1][text]
    most, own = np.bincount(keys).max(), np.bincount(group[rows], minlength=1).max()
    if most > max(HEAP * len(keys), 2 * own):
        log.warning(
            "Texts that several groups share link %d of %d rows, which are not divided. If they are of no interest, "
            "such as a mere thanks, remove them.", most, len(keys),
        )  # fmt: skip
    return np.asarray(keys)


def hold_out_groups(
    strata: Sequence[Hashable], size: int | float, seed: int, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `hold_out`, but whole groups, so that numbers and proportions are met as nearly as these allow.

    Groups are gone through in random order, and one is held out if that brings the share of the rows so far, of its
    labels and of all, nearer to the wanted one. (Scikit-learn's GroupShuffleSplit counts groups, not rows, and knows no
    labels.)

    Args:
        strata, size, seed: of `hold_out`.
        keys: the same for rows of the same group, see `linked`.
    """
    parts, ids = _parts(keys, seed), _ids(strata)
    share = size if isinstance(size, float) else size / len(ids)
    totals = np.append(np.bincount(ids), len(ids))  # of each label, and of all
    seen, taken = np.zeros_like(totals), np.zeros_like(totals)
    counts = [_count(ids, rows, totals) for rows in parts]
    held: list[int] = []

    def gain(part: int, wanted: np.ndarray) -> float:
        """By how much the squared distances to what is wanted shrink, relative to the numbers of rows."""
        own = counts[part]
        last = ((taken + own == totals) & (own > 0)).any()  # rows of a label stay
        return float("-inf") if last else float((own * (2 * (wanted - taken) - own) / totals).sum())

    for part, own in enumerate(counts):
        seen += own
        if gain(part, share * seen) > 0:
            taken += own
            held.append(part)
    if not held:
        best = max(range(len(parts)), key=lambda part: gain(part, share * totals))
        held = [best] if gain(best, share * totals) > float("-inf") else []
    rows = np.sort(np.concatenate([parts[part] for part in held])) if held else np.empty(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(ids)), rows), rows


def stratified_group_folds(strata: Sequence[Hashable], folds: int, seed: int, keys: np.ndarray) -> np.ndarray:
    """As `stratified_folds`, but whole groups, the largest first, each to the fold most short of rows with its labels.

    So does scikit-learn's StratifiedGroupKFold, which refuses data whose labels are all rare, and takes ten times as
    long.

    Args:
        strata, folds, seed: of `stratified_folds`.
        keys: the same for rows of the same group, see `linked`.
    """
    ids = _ids(strata)
    totals = np.append(np.bincount(ids), len(ids))
    short = np.tile(totals / folds, (folds, 1))
    fold_of = np.empty(len(ids), dtype=np.int64)
    for rows in sorted(_parts(keys, seed), key=len, reverse=True):
        own = _count(ids, rows, totals)
        fold = int(np.argmax(short @ (own / totals)))
        short[fold] -= own
        fold_of[rows] = fold
    return fold_of


def _parts(keys: np.ndarray, seed: int) -> list[np.ndarray]:
    """The rows of each group, in random order that depends on where they stand alone."""
    first = first_rows(keys)
    order = np.argsort(first, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    return [parts[i] for i in np.random.default_rng(seed).permutation(len(parts))]


def _ids(strata: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(stratum, len(numbers)) for stratum in strata), dtype=np.int64)


def _count(ids: np.ndarray, rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """How many rows there are of each label, and in all."""
    return np.append(np.bincount(ids[rows], minlength=len(totals) - 1), len(rows))

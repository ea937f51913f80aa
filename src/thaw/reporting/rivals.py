"""Which settings of a multirun did best, and which may be as good for all that repetitions tell."""

import math
import statistics
import warnings
from collections.abc import Sequence

import numpy as np

from thaw.errors import first_few
from thaw.reporting.members import Group, described

LEVEL = 0.05  # from which probability on a difference is put down to chance
WELCH, RESAMPLED = "Welch's t-test over seeds", "the corrected t-test over folds"


def best_of(groups: Sequence[Group], mode: str) -> Group | None:
    """The group with the best mean validation score; the test rows have no say."""
    scored = [group for group in groups if group.scores()]
    pick = max if mode == "max" else min
    return pick(scored, key=lambda group: statistics.mean(group.scores())) if scored else None


def reservation(groups: Sequence[Group], best: Group) -> str:
    """What is to be added where a group is the best by its place in the list, or by a single lucky run."""
    others = [group for group in groups if group is not best and group.scores()]
    score = statistics.mean(best.scores())
    if tied := [group for group in others if statistics.mean(group.scores()) == score]:
        return f", tied with {_named(tied)}"
    if len(best.scores()) == 1 and any(len(group.scores()) > 1 for group in others):
        return ", by a single run, where others have several: it may be luck"
    return ""


def rivals(groups: Sequence[Group], best: Group) -> str:
    """Which groups may be as good as the best for all that their repetitions tell, in sentences.

    By a t-test of each against the best. The best is the luckiest of all, so that one of many would seem worse by
    chance: Holm's correction (1979) allows for that. Over seeds the test is Welch's, which knows nothing of the chance
    that lies in the rows; over folds it is `resampled`.
    """
    others = [group for group in groups if group is not best and group.scores()]
    if not others:
        return ""
    if all(len(group.scores()) == 1 for group in (best, *others)):
        return "With one seed each, what differs may be chance: repeat with seed=1,2,3, or sweep=folds."
    folded = len(best.by_fold()) > 1
    test, name, unit = (resampled, RESAMPLED, "fold") if folded else (welch, WELCH, "seed")
    found = [(group, p) for group in others if (p := test(best, group)) is not None]
    corrected = holm([p for _, p in found])
    close = [(group, p) for (group, _), p in zip(found, corrected, strict=True) if p >= LEVEL]
    rows = "By the validation scores of the folds" if folded else "On these validation rows"
    how = f"{name} with Holm's correction"
    sentences = []
    if close:
        alike = first_few([f"{described(group)} (p = {p:.2f})" for group, p in close])
        sentences.append(f"{rows} it cannot be told apart from {alike}, by {how}.")
    elif found:
        each = "each of the others" + " that could be tested" * (len(found) < len(others))
        sentences.append(f"{rows} {each} is worse by more than chance (p < {LEVEL}, {how}).")
    tested = [group for group, _ in found]
    if untested := [group for group in others if group not in tested]:
        need = f"A test takes two {unit}s of each, and scores that vary over them."
        sentences.append(f"Not tested: {_named(untested)}. {need}")
    return " ".join(sentences)


def welch(one: Group, other: Group) -> float | None:
    """The p-value of Welch's t-test (1947) of the scores of two groups; None where it can tell nothing.

    Where neither score varies it would take any difference for certain.
    """
    from scipy import stats

    scores = one.scores(), other.scores()
    if min(map(len, scores)) < 2 or all(len(set(own)) == 1 for own in scores):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that hardly vary
        return float(stats.ttest_ind(*scores, equal_var=False).pvalue)


def resampled(one: Group, other: Group) -> float | None:
    """The p-value of the corrected resampled t-test (Nadeau and Bengio 2003); None where it can tell nothing.

    It pairs the folds, of which one is as hard for both. The runs of two folds share most of their training rows: taken
    for independent, their differences would seem far surer than they are. So the variance of the mean difference grows
    by the share of validation rows to training rows.
    """
    from scipy import stats

    ours, theirs = one.by_fold(), other.by_fold()
    differences = [statistics.mean(ours[fold]) - statistics.mean(theirs[fold]) for fold in ours]
    if len(differences) < 2 or not np.var(differences):
        return None
    members = [*one.members, *other.members]
    share = statistics.mean(member.share for member in members if member.share is not None)
    error = math.sqrt((1 / len(differences) + share) * statistics.variance(differences))
    return float(2 * stats.t.sf(abs(statistics.mean(differences)) / error, len(differences) - 1))


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected for their number (Holm 1979)."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = corrected[i] = min(1.0, max(largest, (len(values) - rank) * values[i]))
    return corrected


def _named(groups: Sequence[Group]) -> str:
    return first_few([described(group) for group in groups])

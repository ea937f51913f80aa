"""What is said of a multirun beside its table: how to read it, which settings are best, or why none are named."""

import statistics
from collections.abc import Sequence

from thaw.errors import first_few
from thaw.reporting.members import Group, Member, described, told
from thaw.reporting.rivals import reservation, rivals
from thaw.reporting.summary import number


def as_often(groups: Sequence[Group]) -> bool:
    """Whether all settings have as many runs of each fold: one that lacks a run was spared what is hard about it."""
    counts = [{fold: len(scores) for fold, scores in group.by_fold().items()} for group in groups]
    return all(len(own) < 2 for own in counts) or all(own == counts[0] for own in counts)


def same_rows(groups: Sequence[Group]) -> bool:
    """Whether the scores of all settings are of the same validation rows, or over folds of the same."""
    members = [member for group in groups for member in group.members]
    keys = iter(told([member.validated for member in members]))
    return len({frozenset(next(keys) for _ in group.members) for group in groups}) < 2


def mixed(groups: Sequence[Group]) -> list[Group]:
    """Groups whose runs are no repetitions: the data has changed, so that they are of other rows, of a fold or all."""

    def alike(members: Sequence[Member]) -> bool:
        keys = [member.validated for member in members], [member.tested for member in members]
        return all(len(set(told(own))) < 2 for own in keys)

    return [group for group in groups if not all(map(alike, group.of_folds(group.members).values()))]


def about(groups: Sequence[Group], best: Group | None, optimistic: bool) -> str:
    """How to read the table.

    Args:
        best: of the groups, if one is named.
        optimistic: whether it shows metrics of validation rows.
    """
    repeated = "seed or fold" if any(len(group.by_fold()) > 1 for group in groups) else "seed"
    said = f"Runs that differ only in {repeated} share a line: mean ± standard deviation"
    averaged = any(len(group.members) > len(group.by_fold()) > 1 for group in groups)
    said += " over folds; each fold counts with its mean over seeds." if averaged else "."
    if len({member.trainable for group in groups for member in group.members}) > 1:
        said += " Seconds are of training, those of frozen layers with the first run that needs them."
    if best:
        said += " The best is picked by its validation score" + ("." if optimistic else "; the test rows have no say.")
    if optimistic:
        said += " Without a test split the metrics are of the rows that picked the checkpoint: they are optimistic."
    return said


def against_baselines(best: Group) -> list[str]:
    """How the best runs stand to the best baseline on the rows that all of them were tested on; nothing without one."""
    baselines = best.baselines()
    figure = next((name for name in ("test/f1", "validation/f1") if best.figure(name)), None)
    if not baselines or figure is None:
        return []
    name = max(baselines, key=lambda name: baselines[name])
    own, title = statistics.mean(best.figure(figure)), figure.replace("/", " ")
    if own > baselines[name]:
        return [f"For comparison: {name} {number(baselines[name], 3)} ({title})."]
    which = described(best) or "these runs"
    return [f"{name} has {title} {number(baselines[name], 3)} on these rows; {which} {number(own, 3)}."]


def findings(groups: Sequence[Group], best: Group | None, scores: Sequence[str], monitor: str) -> list[str]:
    """Which group is the best and what may be as good, or why none is named; ``scores`` picked the checkpoints."""
    if best:
        found = [f"Best on validation: {described(best)}{reservation(groups, best)}", rivals(groups, best)]
        compared = [line for line in found if line] if len(groups) > 1 else []
        return [*compared, *against_baselines(best)]
    if odd := mixed(groups):
        which = f" of {first_few(list(map(described, odd)))}" if len(groups) > 1 else ""
        found = [f"Not all runs{which} are of the same validation and test rows, as where the data has changed between "
                 "them: their mean and deviation are not over seeds alone."]  # fmt: skip
        return [*found, *(["No run is named the best: runs of one line are of different rows."] * (len(groups) > 1))]
    if len(scores) > 1:
        reason = f"their checkpoints were picked by different scores, {first_few(scores)}."
        reason += f" To compare them give all the same, monitor={monitor} say."
    elif not as_often(groups):
        reason = "not all settings have as many finished runs of each fold."
    elif not same_rows(groups):
        reason = "their scores are not of the same validation rows."
    else:
        return []
    return [f"No run is named the best: {reason}"]

"""The runs of a multirun: what each was told, what it gave, and which are repetitions of one another."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from omegaconf import OmegaConf

from thaw import files, runs
from thaw.errors import UserError
from thaw.metrics.baselines import UNTRAINED
from thaw.overrides import GONE, settings_of
from thaw.reporting import summary
from thaw.settings import INERT, flat, neutral

T = TypeVar("T")
FOLD = "data.fold"
NOT_SWEPT = ("seed", FOLD)  # runs that differ in these alone are repetitions of one another
NAMES = {"data.name": "data", "model.name": "model", "freeze.name": "freeze"}  # how files of groups call themselves
# What the comparison of two runs leaves out: where the rows stand, which are the same, and what follows from the rest.
IMPLIED = ("data.path", "data.validation_path", "data.test_path", "model.learning_rate", "freeze.learning_rate")
CHOSEN = "chosen"  # in the config of a W&B run: the files of config groups, which have no value of their own


class RowsKey(NamedTuple):
    """What tells the rows of one run from those of another.

    Args:
        rows: what they are taken out of, how many they are, and how many have each label.
        places: a key of where they stand; None of runs of earlier versions.
    """

    rows: str
    places: str | None


@dataclass
class Member:
    """One run of a multirun.

    Args:
        folder: of the run.
        settings: its overrides, key -> value.
        status: finished, failed, pruned or stopped.
        score: the best monitored validation score.
        figures: of the test rows, or of validation where there is no test: ``test/f1`` -> value.
        baselines: the F1 of each on the same rows as the figures, without that of the encoder before training.
        trainable: how many parameters were trained.
        seconds: of training.
        error: why it failed.
        mendable: whether the error is the user's to mend, so that nothing is gained by trying the same again.
        validated: key of the validation rows, which the score is of.
        tested: key of the test rows; None where there is no test.
        share: validation rows for each training row.
        monitor: what the score is: ``val/f1``.
        name: of the folder, as tables show it.
    """

    folder: Path
    settings: dict[str, str]
    status: str
    score: float | None = None
    figures: dict[str, float] | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    trainable: int | None = None
    seconds: float | None = None
    error: str = ""
    mendable: bool = False
    validated: RowsKey | None = None
    tested: RowsKey | None = None
    share: float | None = None
    monitor: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.folder.name


@dataclass
class Group:
    """Finished runs that differ in their seed or fold alone."""

    settings: dict[str, str]
    members: list[Member]

    def scores(self) -> list[float]:
        """That of each run, or of several folds the mean of each over its seeds."""
        return self._repeated([member.score for member in self.members])

    def by_fold(self) -> dict[str, list[float]]:
        """The scores of each fold that was run."""
        scores = self.of_folds([member.score for member in self.members])
        return {fold: own for fold, own in scores.items() if fold is not None}

    def of_folds(self, values: Sequence[T | None]) -> dict[str | None, list[T]]:
        """What the runs of each fold have, of what each run has if anything; the fold of runs on all rows is None."""
        folds: dict[str | None, list[T]] = {}
        for member, value in zip(self.members, values, strict=True):
            if value is not None:
                folds.setdefault(member.settings.get(FOLD), []).append(value)
        return folds

    def figure(self, name: str) -> list[float]:
        """As `scores`, of a figure; none if a run lacks it, since the mean would be of fewer runs than are counted."""
        values = [(member.figures or {}).get(name) for member in self.members]
        return self._repeated(values) if None not in values else []

    def baselines(self) -> dict[str, float]:
        """The mean F1 of each baseline that all runs have, as of `figure`."""
        names = dict.fromkeys(name for member in self.members for name in member.baselines)
        values = {name: [member.baselines.get(name) for member in self.members] for name in names}
        return {name: statistics.mean(self._repeated(own)) for name, own in values.items() if None not in own}

    def _repeated(self, values: Sequence[float | None]) -> list[float]:
        """A value for each run, or for each of several folds: one that lacks a seed counts as much as the others."""
        folds = self.of_folds(values)
        return list(map(statistics.mean, folds.values())) if len(folds) > 1 else [*chain(*folds.values())]


def read_members(folder: Path) -> list[Member]:
    """The runs of a multirun, in the order in which their folders are named, or the run whose folder it is.

    Raises:
        UserError: when there is none.
    """
    if (folder / "config.yaml").is_file():
        return [_member(folder)]
    found = runs.members_of(folder)
    if not found:
        raise UserError(f"{runs.display(folder)}: no runs", "Give the folder of a multirun: outputs/multirun/...")
    return [_member(path) for path in found]


def _member(folder: Path) -> Member:
    if (folder / runs.FAILURE).is_file():
        failure = files.read_json(folder / runs.FAILURE)
        settings, mendable = settings_of(failure["overrides"]), "traceback" not in failure
        return Member(folder, settings, "failed", error=failure["error"], mendable=mendable)
    settings = overridden(folder)
    if not (folder / "metrics.json").is_file():
        status = "pruned" if (folder / runs.PRUNED).is_file() else "stopped"
        return Member(folder, settings, status)
    metrics = files.read_json(folder / "metrics.json")
    split = runs.known_splits(folder)[-1]
    names = [f"{split}/{name}" for name in summary.headline_names(metrics, [split])]
    figures = {name: metrics[name] for name in names if metrics[name] is not None}
    beside = metrics.get("baselines", {}).get(split, {}).items()
    baselines = {name: own["f1"] for name, own in beside if name != UNTRAINED and own.get("f1") is not None}
    splits = files.read_json(folder / "data.json")["splits"]
    validation = splits["validation"]
    # Not the fingerprint: whether to clean the texts of the same rows may be what is swept.
    data = runs.load_config(folder).data
    keys = ("path", "validation_path", "hub", "hub_config", "split_seed", "fold", "test_size", "group_column")
    source = [data.get(key) for key in keys]
    validated = _key(validation, source)
    tested = _key(splits["test"], [*source, data.get("test_path")]) if "test" in splits else None
    share = validation["rows"] / splits["train"]["rows"]
    best, seconds = metrics["best"], metrics["seconds"]["train"]
    return Member(
        folder, settings, "finished", best["score"], figures, baselines, metrics.get("trainable"), seconds,
        validated=validated, tested=tested, share=share, monitor=best["monitor"],
    )  # fmt: skip


def _key(split: Mapping[str, Any], source: Sequence[Any]) -> RowsKey:
    return RowsKey(json.dumps([split["rows"], split["labels"], *source]), split.get("places"))


def told(keys: Sequence[RowsKey | None]) -> list[Any]:
    """Keys that can be compared: of the places only where all tell them."""
    known = all(key is None or key.places for key in keys)
    return [key and (key if known else key.rows) for key in keys]


def comparable(members: Sequence[Member]) -> list[Member]:
    """Runs of several commands, each once, with settings that tell all their configs apart.

    What was typed says too little: what one command states is the default of another. Runs with the same settings on
    other rows, since the data has changed between them, are not the same.
    """
    members = list({member.folder.resolve(): member for member in members}.values())
    configs = {member.folder: _flat(member.folder) for member in members if member.status == "finished"}
    typed = dict.fromkeys(key for member in members for key in member.settings)
    every = dict.fromkeys(key for config in configs.values() for key in config)
    chosen: list[str] = []

    def told_apart(keys: Sequence[str]) -> int:
        return len({tuple(config.get(key) for key in keys) for config in configs.values()})

    for key in dict.fromkeys([*NAMES, *typed, *every]):
        # Of what nobody typed only what is needed: the rest follows from what was typed.
        stated = (key in NAMES or key in typed) and told_apart([key]) > 1
        if key not in NOT_SWEPT and (stated or told_apart([*chosen, key]) > told_apart(chosen)):
            chosen.append(key)
    once: dict[tuple[Any, ...], Member] = {}
    rows = zip(told([member.validated for member in members]), told([member.tested for member in members]), strict=True)
    for member, own in zip(members, rows, strict=True):
        config = configs.get(member.folder)
        settings = {NAMES.get(key, key): config.get(key, GONE) for key in [*chosen, *NOT_SWEPT]} if config else {}
        if settings.get(FOLD) == "null":
            del settings[FOLD]
        named = replace(member, name=runs.display(member.folder), settings=settings)
        once.setdefault((*settings.items(), own) if config else (member.folder,), named)
    return list(once.values())


def _flat(run: Path) -> dict[str, str]:
    """The config of a run as dotted keys and what one would type, without what changes no result."""
    config: Any = OmegaConf.to_container(runs.load_config(run))
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat(config) if value != {}}
    return {key: value for key, value in values.items() if key not in INERT and not neutral(key)}


def differing(first: Path, second: Path) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, with what each has; what a run has no use for is null."""
    ours, theirs = _flat(first), _flat(second)
    pairs = {key: (ours.get(key, "null"), theirs.get(key, "null")) for key in dict.fromkeys([*ours, *theirs])}
    odd = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    if "data.epochs" in odd:
        odd.pop("trainer.max_epochs", None)  # which follows
    left_out = [key for key in odd if key in IMPLIED or key.startswith(("model.package", "expected."))]
    return {NAMES.get(key, key): pair for key, pair in odd.items() if key not in left_out}


def overridden(run: Path) -> dict[str, str]:
    """The overrides of a run that has begun, key -> value."""
    return settings_of(files.read_json(run / "environment.json").get("overrides", []))


def picks_a_file(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a setting names a file of a config group, as ``freeze=head`` does: the config has no such value."""
    return "." not in key and isinstance(config.get(key, {}), Mapping)


def is_wandb(settings: Mapping[str, Any]) -> bool:
    """Whether a logger is that of W&B, whatever its config is called."""
    return str(settings["_target_"]).endswith(".WandbLogger")


def swept_keys(members: Sequence[Member]) -> list[str]:
    """The settings that are not the same in all runs, seed and fold apart."""
    keys = dict.fromkeys(key for member in members for key in member.settings if key not in NOT_SWEPT)
    return [key for key in keys if len({member.settings.get(key) for member in members}) > 1]


def grouped(members: Sequence[Member], keys: Sequence[str]) -> list[Group]:
    """Finished runs, those together that differ in their seed or fold alone."""
    groups: dict[tuple[str, ...], Group] = {}
    for member in members:
        if member.status == "finished":
            settings = {key: member.settings.get(key, GONE) for key in keys}
            told = (*settings.values(), str(FOLD in member.settings))  # a run on all rows repeats no fold
            groups.setdefault(told, Group(settings, [])).members.append(member)
    return list(groups.values())


def monitored(members: Sequence[Member]) -> tuple[str, str]:
    """What picks the best, as most runs have it."""
    configs = [runs.load_config(member.folder) for member in members if member.status == "finished"]
    pairs = [(str(config.monitor), str(config.mode)) for config in configs]
    return max(pairs, key=pairs.count) if pairs else ("score", "max")


def described(group: Group) -> str:
    """The settings of a group as they are typed."""
    return " ".join(f"{key}={value}" for key, value in group.settings.items())

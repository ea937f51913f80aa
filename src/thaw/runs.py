"""The run folder: what it contains, and how it is opened.

``config.yaml`` (resolved) ``labels.json`` ``environment.json`` ``data.json`` ``parameters.json`` ``history.csv``
``train.log`` ``metrics.json`` ``surfaces.json`` ``report.html`` ``explanations.html`` ``predictions/`` ``checkpoints/``
``model/``; with adapters ``adapter/``; of further rows ``metrics-<name>.json`` and ``report-<name>.html``; once
exported ``onnx/`` or ``merged/``; in multiruns also ``failure.json`` or ``pruned.json`` of a run that was not finished.
"""

import csv
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from thaw.errors import Occupied, UserError
from thaw.files import check_not_over, damaged, named_by, read_json, read_jsonl, write_text
from thaw.labels import LabelSet
from thaw.values import DATA_PATHS

FAILURE = "failure.json"  # why a run of a multirun failed
PRUNED = "pruned.json"  # when a trial was ended early because others were better
PLACES = (*(("data", key) for key in DATA_PATHS), ("model", "name"))  # the settings that may name files or folders
ADDED: dict[str, Any] = {  # settings that runs of earlier versions lack, with what they did
    "data.fold": None, "data.folds": 5, "data.truncation": "end", "data.validation_path": None, "data.test_path": None,
    "data.test_size": None, "data.group_column": None, "data.label_map": None, "data.corrections": None,
    "loss.function": None, "metrics": {}, "baselines": True,
}  # fmt: skip
LOCK = ".lock"  # held while a process writes to the folder
Saved = tuple[list[Any], list[Any], list[str], list[str | None]]
"""Texts, label ids, places and groups of rows; the last may be empty."""


def occupy(folder: Path) -> AbstractContextManager[Any]:
    """Lock a folder against processes of other runs until the context or this process ends.

    Raises:
        Occupied: when another process holds the lock.
    """
    from filelock import FileLock, Timeout

    if rank():
        return nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / LOCK, fallback_to_soft=False).acquire(timeout=0)
    except Timeout:
        raise Occupied(f"{display(folder)}: in use by another process", "Wait for it, or stop it.") from None
    except (OSError, NotImplementedError):  # a file system without locks
        return nullcontext()


def drop_empty(folder: Path, *names: str) -> None:
    """Remove the folder of a run that never began, and the two above it (model, data) if they are empty then.

    Args:
        names: files that the folder may hold.
    """
    ours = {LOCK, *names}
    if folder == Path.cwd() or not folder.is_dir() or any(path.name not in ours for path in folder.iterdir()):
        return
    with suppress(Occupied), occupy(folder):
        for name in ours:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
        for parent in folder.parents[:2]:
            if parent == Path.cwd() or any(parent.iterdir()):
                return
            parent.rmdir()


def open_run(folder: str | Path, needs: str = "config.yaml") -> Path:
    """The folder of a run, checked.

    Args:
        folder: what the user gave as ``run=`` or ``resume=``.
        needs: the file or folder without which the run cannot be used for the purpose at hand.

    Raises:
        UserError: when the folder does not exist, is not a run, or does not have ``needs`` yet.
    """
    run = Path(folder).expanduser().absolute()
    if not run.is_dir():
        meant = str(folder) != "latest" and get_close_matches(str(folder), ["latest"])  # which only scripts know
        hint = "Did you mean latest?" if meant else "Runs are under outputs/<data>/<model>/<date and time>."
        raise UserError(f"{folder}: no such run folder", hint)
    if not (run / "config.yaml").is_file():
        inside = members_of(run)
        if inside and (run / "multirun.yaml").is_file():
            remedy = f"Give one of its runs; python report.py runs={shell_path(run)} compares them all."
            raise UserError(f"{folder}: a multirun, not a run", remedy)
        hint = f"Did you mean {inside[-1]}?" if inside else "A run folder holds a config.yaml."
        raise UserError(f"{folder}: not a run folder", hint)
    if not (run / needs).exists():
        raise UserError(f"{folder}: the run is not finished ({needs} is missing)", f"Resume: {resume_command(run)}")
    return run


def listed(value: str) -> list[str]:
    """The folders that a setting names; a comma separates two, unless it is part of the name of one."""
    if os.path.exists(os.path.expanduser(value)):
        return [value]
    return [name.strip() for name in value.removeprefix("[").removesuffix("]").split(",")]


def check_once(names: Sequence[str | Path], key: str) -> None:
    """Refuse the folders of a setting if two are the same."""
    folders = [Path(name).expanduser().resolve() for name in names]
    if twice := [name for name, folder in zip(names, folders, strict=True) if folders.count(folder) > 1]:
        raise UserError(f"{key}: {twice[0]} is given twice", "Give each once.")


def several(names: Sequence[str | Path]) -> list[str]:
    """Run folders, with each multirun replaced by its finished runs; a note says how many these are.

    Raises:
        UserError: when a name is empty, a run named twice, or none of a multirun is finished.
    """
    if not all(map(str, names)):
        raise UserError(f"run={','.join(map(str, names))}: a name is missing", "A comma separates two run folders.")
    found: list[str] = []
    for name in names:
        folder = Path(name).expanduser()
        if not (folder / "multirun.yaml").is_file():
            found.append(str(name))
            continue
        members = members_of(folder)
        finished = [member for member in members if (member / "metrics.json").is_file() and (member / "model").is_dir()]
        if not finished:
            raise UserError(f"{name}: no run of this multirun is finished", "The command that began it resumes it.")
        print(f"note: finished runs of {name}: {len(finished)} of {len(members)}", file=sys.stderr)
        found += map(display, finished)
    check_once(found, "run")
    return found


def members_of(multirun: Path) -> list[Path]:
    """The folders of the runs in that of a multirun, those that failed before they began included."""
    return sorted({path.parent for name in ("config.yaml", FAILURE) for path in multirun.glob(f"*/{name}")})


def open_unfinished(folder: str | Path) -> Path:
    """The folder of a run to resume, checked as by `open_run`.

    Raises:
        UserError: also when the run is finished.
    """
    run = open_run(folder)
    if (run / "metrics.json").is_file() and (run / "model").is_dir():
        raise UserError(f"{folder}: this run is finished", f"Evaluate it: python evaluate.py run={shell_path(run)}")
    return run


def known_splits(run: Path) -> list[str]:
    """The splits that the run was evaluated on; the last is the one it was tested on."""
    return [split for split in ("validation", "test") if predictions_path(run, split).is_file()]


def predictions_path(run: Path, name: str) -> Path:
    """Where the predictions for a split, or for further rows, are kept."""
    return run / "predictions" / f"{name}.jsonl"


def labels_of(run: Path) -> LabelSet:
    """The labels that a run has learnt."""
    return LabelSet.from_dict(read_json(run / "labels.json"))


def history(run: Path) -> list[dict[str, str]]:
    """The rows of ``history.csv``; none before the first is written."""
    path = run / "history.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metrics_path(run: Path, name: str) -> Path:
    """The file with the metrics of some rows: ``metrics.json`` for the run's own splits."""
    own = f"{name}/loss" in read_json(run / "metrics.json")
    return run / ("metrics.json" if own else f"metrics-{name}.json")


def saved_rows(run: Path, split: str, labels: LabelSet) -> Saved:
    """The rows of a split, as saved in the run folder."""
    if split not in known_splits(run):
        held = ", ".join(known_splits(run))
        raise UserError(
            f"split={split}: the run was not tested on it",
            f"It holds: {held}, and can read train. Other rows: data.path=...",
        )
    return unpacked(read_jsonl(predictions_path(run, split)), labels)


def unpacked(rows: Sequence[Mapping[str, Any]], labels: LabelSet) -> Saved:
    """Saved rows in the form of `saved_rows`."""
    texts = [row["words"] if labels.task == "token" else row["text"] for row in rows]
    gold, places = [labels.ids_of(row["label"]) for row in rows], [row.get("place", "") for row in rows]
    return texts, gold, places, [row["group"] for row in rows if "group" in row]


def rank() -> int:
    """The rank of this process in a distributed run, known before Lightning is imported."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))


def resume_command(run: Path) -> str:
    return f"python train.py resume={shell_path(run)}"


def display(path: Path) -> str:
    """The path as a user would type it: relative to the working folder if it lies below it."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def shell_path(path: Path) -> str:
    """The path as `display` gives it, quoted for the shell if need be."""
    return shlex.quote(display(path))


def sync_command(folder: Path) -> str:
    """The command that uploads the offline W&B runs of a run or multirun; empty if there is nothing to upload."""
    patterns = [
        f"{below}wandb/offline-run-*"
        for below in ("", "*/")
        if any(not list(run.glob("*.wandb.synced")) for run in folder.glob(f"{below}wandb/offline-run-*"))
    ]
    return " ".join(["wandb sync", *(f"{shell_path(folder)}/{one}" for one in patterns)]) if patterns else ""


def make_absolute(config: DictConfig) -> None:
    """Make local paths absolute, so that the run can be resumed or evaluated from anywhere."""
    for group, key in PLACES:
        if (place := config[group].get(key)) and named_by(place):
            config[group][key] = os.path.abspath(os.path.expanduser(place))


def spare_data(run: Path, output: str | None) -> None:
    """Refuse to write over the data of a run."""
    data = load_config(run).data
    for place in (data.get(key) for key in DATA_PATHS) if output else ():
        check_not_over(str(output), place or "", "the data of the run")


def save_config(run: Path, config: DictConfig) -> None:
    """Save the resolved config, so that it can be read without Hydra."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    write_text(run / "config.yaml", OmegaConf.to_yaml(resolved, sort_keys=False))


def load_config(run: Path) -> DictConfig:
    """The config of a run; settings that its version did not have yet get the values that do as it did."""
    path = run / "config.yaml"
    try:
        config = OmegaConf.load(path)
    except (YAMLError, ValueError) as error:
        raise damaged(path, error) from None
    if not isinstance(config, DictConfig) or not isinstance(config.get("data"), DictConfig):
        raise UserError(f"{path}: not the config of a run", "Put the file back, or train again.")
    return upgraded(config)


def upgraded(config: DictConfig) -> DictConfig:
    """The config of a run with the settings that have come since, of which `ADDED` says what earlier versions did."""
    by_layers = OmegaConf.select(config, "freeze.name") in ("bitfit", "dora", "ia3", "lora")
    for key, value in {**ADDED, **({"freeze.n": None} if by_layers else {})}.items():
        group, _, name = key.rpartition(".")
        held = config.get(group) if group else config
        if held is not None and name not in held:
            held[name] = value
    return config

"""The run folder: what it contains, written atomically and read back in one place.

``config.yaml`` (resolved) ``labels.json`` ``environment.json`` ``data.json`` ``parameters.json`` ``history.csv``
``metrics.json`` ``surfaces.json`` ``report.html`` ``explanations.html`` ``predictions/`` ``checkpoints/`` ``model/``
"""

import csv
import errno
import gzip
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from thaw.errors import Occupied, UserError, reason
from thaw.labels import LabelSet

FAILURE = "failure.json"  # why a run of a multirun failed
PRUNED = "pruned.json"  # when a trial was ended early because others were better
PLACES = (("data", "path"), ("model", "name"))  # the settings that may name a file or folder
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # why something cannot be written at all
LOCK = ".lock"  # held while a process writes to the folder


@contextmanager
def atomic_write(path: Path, zipped: bool = False) -> Iterator[IO[str]]:
    """Open a text file that appears under its name only once it is complete, even if the process is killed.

    A lone surrogate, which JSON can escape but UTF-8 cannot encode, becomes a question mark.

    Args:
        zipped: compress with gzip.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    opened = gzip.open if zipped else open
    with writing(path, temporary):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened(temporary, "wt", encoding="utf-8", errors="replace", newline="\n") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def writing(path: Path, temporary: Path) -> Iterator[None]:
    """Say in one line why a place cannot be written; other errors, such as of reading meanwhile, stay as they are."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise UserError(f"{path}: cannot be written: {error.strerror}", "Choose a place with room.") from error
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if place and (place in (path, temporary, *path.parents) or temporary in place.parents):
            file = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
            why = f"{file} is a file, not a folder" if file else error.strerror
            remedy = "Choose another place, or see to its permissions."
            raise UserError(f"{path}: cannot be written: {why}", remedy) from error
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table; None becomes an empty cell."""
    with atomic_write(path) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader accepts: NaN and infinities become null."""
    with atomic_write(path) as file:
        json.dump(finite(value), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")


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


def replace_folder(path: Path, save: Callable[[str], Any]) -> None:
    """Replace a folder by a new one that appears under its name only once it is complete."""
    temporary, before = (path.with_name(f".{path.name}.{os.getpid()}{end}") for end in ("", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(path, temporary):
        try:
            save(str(temporary))
            if path.exists():
                os.replace(path, before)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if before.exists() and not path.exists():
                os.replace(before, path)
            raise
        finally:
            shutil.rmtree(before, ignore_errors=True)


def check_not_over(output: str | Path, source: str | Path, name: str) -> None:
    """Refuse to write over the file that is read, or into the folder that is read.

    Args:
        name: what to call the source in the message.
    """
    path, read = (Path(place).expanduser().resolve() for place in (output, source))
    if path.is_relative_to(read):
        raise UserError(f"output={output}: this {'is' if path == read else 'lies in'} {name}", "Choose another place.")


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a file of a run folder that cannot be read."""
    return UserError(f"{path}: damaged: {reason(error)}", "Put the file back, or train again.")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            return [json.loads(line) for line in file]
        except ValueError as error:
            raise damaged(path, error) from None


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
        raise UserError(f"{folder}: no such run folder", "Runs are under outputs/<data>/<model>/<date and time>.")
    if not (run / "config.yaml").is_file():
        inside = sorted(path.parent for path in run.glob("*/config.yaml"))
        hint = f"Did you mean {inside[-1]}?" if inside else "A run folder holds a config.yaml."
        raise UserError(f"{folder}: not a run folder", hint)
    if not (run / needs).exists():
        raise UserError(f"{folder}: the run is not finished ({needs} is missing)", f"Resume: {resume_command(run)}")
    return run


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
    return [split for split in ("validation", "test") if (run / "predictions" / f"{split}.jsonl").is_file()]


def saved_rows(run: Path, split: str, labels: LabelSet) -> tuple[list[Any], list[Any], list[str]]:
    """Texts, label ids and places of the rows of a split, as saved in the run folder."""
    path = run / "predictions" / f"{split}.jsonl"
    if split not in known_splits(run):
        raise UserError(f"split={split}: the run has no such split", f"It holds: {', '.join(known_splits(run))}.")
    texts, gold, places = [], [], []
    for row in read_jsonl(path):
        places.append(row.get("place", ""))
        texts.append(row["words"] if labels.task == "token" else row["text"])
        gold.append(labels.ids_of(row["label"]))
    return texts, gold, places


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
        value = config[group][key]
        if value and os.path.exists(os.path.expanduser(value)):
            config[group][key] = os.path.abspath(os.path.expanduser(value))


def save_config(run: Path, config: DictConfig) -> None:
    """Save the resolved config, so that it can be read without Hydra."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    write_text(run / "config.yaml", OmegaConf.to_yaml(resolved, sort_keys=False))


def load_config(run: Path) -> DictConfig:
    path = run / "config.yaml"
    try:
        config = OmegaConf.load(path)
    except (YAMLError, ValueError) as error:
        raise damaged(path, error) from None
    if not isinstance(config, DictConfig) or "data" not in config:
        raise UserError(f"{path}: not the config of a run", "Put the file back, or train again.")
    return config


def environment() -> dict[str, Any]:
    """What a run is made with: command, commit, versions, machine."""
    import platform
    import subprocess
    from datetime import UTC, datetime
    from importlib.metadata import PackageNotFoundError, version

    import torch

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    packages = ("torch", "pytorch-lightning", "transformers", "tokenizers", "datasets", "peft", "torchmetrics")
    return {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def finite(value: Any) -> Any:
    """Plain containers in which None replaces NaN and infinities, which JSON cannot express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value

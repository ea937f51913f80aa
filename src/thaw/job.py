"""What a run knows about itself before it starts: its folder, its command, the settings it changes.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import atexit
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw import multirun
from thaw.errors import UserError
from thaw.files import plain_name
from thaw.help import typed
from thaw.overrides import unquoted
from thaw.runs import open_unfinished, rank, resume_command
from thaw.settings import ANEW, better, check_source

WRITTEN = ("config.yaml", "metrics.json", "report.html", "model", "checkpoints", "predictions")  # of every run


def stem(path: str | None) -> str:
    """A short name for data given by its path: the file or folder name without its endings."""
    if not path or path == "???":
        return "data"  # that it is missing is reported where it is needed
    return plain_name(Path(path).expanduser()).split(".")[0] or "data"


def run_folder(resume: str | None, data: str, model: str, overrides: Sequence[str], time: str) -> str:
    """Where a run is kept: ``outputs/<data>/<model>/<time>``, or the folder of the run to resume.

    All processes of a distributed run but the first get a temporary folder.
    """
    if rank():
        folder = tempfile.mkdtemp(prefix="thaw-rank-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    if resume and not (Path(resume).expanduser() / "config.yaml").is_file():
        return tempfile.mkdtemp(prefix="thaw-")  # an error follows, and must not create the folder it reports
    if resume:
        return str(Path(resume).expanduser())
    named = [override.split("=", 1)[1] for override in overrides if override.startswith("model.name=")]
    if named:
        path = Path(named[-1].strip("'\""))
        # Of a run to go on from it is outputs/<data>/<model>/<time>/model.
        model = path.parents[1].name if path.name == "model" and len(path.parents) > 2 else path.name
    return f"outputs/{data}/{model}/{time}"


def job(config: DictConfig) -> dict[str, Any]:
    """Check what a run starts from, and collect what Hydra knows about it and the config does not.

    Returns:
        ``folder`` of the run; ``multirun``: whether it is one of several in this process; ``origin``: the ``command``
        that repeats this run, its ``overrides``, and the settings it ``changed``, each with its value and the default.

    Raises:
        UserError: when the data or the run to resume is missing, settings are changed that a resumed run keeps, or the
            best score would be the worst.
    """
    state = HydraConfig.get()
    overrides = list(state.overrides.task)
    kept = [item for item in overrides if item.partition("=")[0] not in ("resume", *ANEW)]
    if kept and any(item.startswith("resume=") for item in overrides):
        remedy = f"Leave it out, or start a new run. These may change: {', '.join(ANEW)}."
        raise UserError(f"{kept[0]} with resume: a resumed run keeps its own settings", remedy)
    check_mode(config, overrides)
    folder = Path(state.runtime.output_dir)
    if config.resume:
        folder = open_unfinished(config.resume)  # now, before anything heavy is imported
    elif not multirun.active():
        check_source(config.data)
        taken = [name for name in WRITTEN if (folder / name).exists()]
        if taken and not rank():
            what = "a run" if "config.yaml" in taken else taken[0]
            unfinished = what == "a run" and "metrics.json" not in taken
            way = f", or resume it: {resume_command(folder)}" if unfinished else "."
            raise UserError(f"{folder}: there is {what} already", f"Give another{way}")
    name = str(state.job.config_name)
    # Without the preset, which would make many runs.
    typed = [unquoted(item) for item in overrides if not item.startswith("sweep=")]
    command = shlex.join(["python", f"{name}.py", *typed])
    origin = {"command": command, "overrides": overrides, "changed": changed(config, name, overrides)}
    return {"folder": folder, "multirun": multirun.active(), "origin": origin}


def check_mode(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a direction in which the best score would be the worst; that of a metric of the user's must be known."""
    metric = config.metrics.get(config.monitor.removeprefix("val/"))
    if metric is None:
        if config.mode != better(config.monitor):
            high = "low" if config.mode == "max" else "high"
            raise UserError(f"mode={config.mode}: {config.monitor} should be {high}", "Leave mode out.")
        return
    # Scikit-learn's convention for the names of its functions.
    kind = str(metric["_target_"]).rpartition("_")[2]
    known = {"score": "max", "error": "min", "loss": "min"}.get(kind)
    if known and config.mode != known:
        raise UserError(
            f"mode={config.mode}: {config.monitor} is {'an' if kind == 'error' else 'a'} {kind}", f"Give mode={known}."
        )
    if not known and not any(item.startswith("mode=") for item in overrides):
        raise UserError(f"monitor={config.monitor}: is more of it better, or less?", "Give mode=max or mode=min.")


def changed(config: DictConfig, name: str, overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """The settings that differ from what the chosen files of the config groups say: key, value, default.

    A setting that only one side has shows a dash; one that is interpolated from a changed setting is not listed.
    """
    groups = GlobalHydra.instance().config_loader().list_groups("")
    usual = defaults(name, tuple(one for one in overrides if one.lstrip("+~").partition("=")[0] in groups))
    (ours, theirs), (own, default) = ([typed(one, resolve) for one in (config, usual)] for resolve in (False, True))
    rows = [(key, own.get(key, "–"), default.get(key, "–")) for key in {**own, **default}]
    return [row for row in rows if row[1] != row[2] and ours.get(row[0]) != theirs.get(row[0])]


@cache
def defaults(name: str, choices: tuple[str, ...]) -> DictConfig:
    """The config of a script with no overrides other than the choices of config groups."""
    config = GlobalHydra.instance().config_loader().load_configuration(name, list(choices), RunMode.RUN)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config

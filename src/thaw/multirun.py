"""Multiruns: each run has its own folder, finished runs are not repeated, and a failure does not stop the others.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import atexit
import gc
import hashlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw import files, runs
from thaw.errors import Occupied, UserError
from thaw.reporting import pages
from thaw.settings import INERT, written_since

LONGEST = 60  # characters of a folder's name before the digest
ONE_VALUE = re.compile(r"""\[[^\[\]]*\]|\{[^{}]*\}|'[^']*'|"[^"]*\"""")  # a list, dict or quoted text, commas and all
log = logging.getLogger(__name__)


def multirun_folder(overrides: Sequence[str]) -> str:
    """The folder of a multirun below ``outputs/multirun``; the same command gives the same folder.

    Args:
        overrides: ``key=value``; the swept ones with all their values.
    """
    swept = [*(one for one in overrides if one.startswith("sweep=")), *_swept(overrides)]
    said = "_".join(_said(override) for override in [*swept, *(one for one in overrides if one not in swept)])
    return f"{_plain(said) or 'defaults'}_{_digest(overrides)}"


def job_folder(overrides: Sequence[str], every: Sequence[str]) -> str:
    """The folder of one run within its multirun: the swept settings, with their values in this run.

    Args:
        overrides: of this run.
        every: the overrides of the multirun.
    """
    shared = {override.partition("=")[0] for override in every} - {one.partition("=")[0] for one in _swept(every)}
    own = [override for override in overrides if override.partition("=")[0] not in shared]
    said = "_".join(_said(override) for override in own) or "run"  # nothing is swept
    # If characters had to be dropped, the digest keeps names distinct.
    return _plain(said) if _plain(said) == said else f"{_plain(said)}_{_digest(own)}"


def _swept(overrides: Sequence[str]) -> list[str]:
    """The overrides with several values; a list, dict or quoted text is one value."""
    return [override for override in overrides if re.search(r"=.*[,(]", ONE_VALUE.sub("", override))]


def _said(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}-{value}"


def _plain(said: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", said)[:LONGEST].strip("-_.")


def _digest(overrides: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]


def active() -> bool:
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def begin(config: DictConfig, folder: Path) -> float | None:
    """Continue a run of a multirun from where an earlier start of the same multirun left it.

    A stopped run resumes (``config.resume`` is set); one whose settings have since changed, for example in ``conf/``,
    is moved to ``earlier/``.

    Args:
        config: of this run.
        folder: of this run.

    Returns:
        The best validation score if the run is already finished, else None.
    """
    runs.make_absolute(config)
    (folder / runs.FAILURE).unlink(missing_ok=True)
    if not (folder / "config.yaml").is_file():
        return None
    saved = runs.load_config(folder)
    if config.trainer.precision == "auto":  # saved as what it was on the machine where the run began
        config.trainer.precision = saved.trainer.precision
    if _comparable(saved) != _comparable(config):
        aside = _free(folder.parent / "earlier" / folder.name)
        aside.parent.mkdir(exist_ok=True)
        os.replace(folder, aside)
        folder.mkdir()
        log.warning("%s had different settings and was moved to %s.", runs.display(folder), runs.display(aside))
        return None
    # If corrected since then: tables of published figures read it from the run.
    if saved.get("expected") != config.expected:
        saved.expected = config.expected
        runs.save_config(folder, saved)
    if not (folder / "metrics.json").is_file():
        config.resume = str(folder)
        log.info("Resuming %s, which was stopped.", runs.display(folder))
        return None
    log.info("%s is finished already.", runs.display(folder))
    if changed := written_since(config.data, folder / "data.json"):
        log.warning("%s was written after it began. To train it anew, remove its folder.", runs.display(changed))
    if not (folder / "report.html").is_file():  # killed before the page was drawn
        pages.draw(folder)
    score = files.read_json(folder / "metrics.json")["best"]["score"]
    return float("nan") if score is None else float(score)


def _comparable(config: DictConfig) -> Any:
    """The settings that the results of a run depend on."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for key in INERT:
        group, _, name = key.rpartition(".")
        (plain[group] if group else plain).pop(name, None)
    if plain["data"].get("fold") is None:  # then how many folds there would be has no effect
        for name in ("fold", "folds"):
            plain["data"].pop(name, None)
    if plain["trainer"]["devices"] == "auto":  # the default of earlier versions: here, where several are refused, one
        plain["trainer"]["devices"] = 1
    for group, key in runs.PLACES:  # absolute in the saved config, even if nothing is there any more
        plain[group][key] = plain[group][key] and os.path.abspath(os.path.expanduser(plain[group][key]))
    return plain


def _free(path: Path) -> Path:
    """The path itself, or the first numbered variant that does not exist yet."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}_{number}")
    return free


def keep_failure(error: Exception, folder: Path) -> float:
    """Record why a run failed, so that the others can continue.

    Returns:
        NaN, which a sweeper takes for a failed trial.
    """
    if isinstance(error, Occupied):  # for example by an identical run of this multirun, which owns the folder
        print(f"error: {error}", file=sys.stderr)
        return float("nan")
    fixable = isinstance(error, UserError)
    said = str(error) if fixable else f"{type(error).__name__}: {error}"
    failure = {"overrides": list(HydraConfig.get().overrides.task), "error": " ".join(said.split())}
    if not fixable:
        traceback.print_exception(error)
        failure["traceback"] = "".join(traceback.format_exception(error))
    if not (folder / "metrics.json").is_file():  # otherwise the run is complete and something after it failed
        files.write_json(folder / runs.FAILURE, failure)
    print(f"error: {failure['error']}", file=sys.stderr)
    return float("nan")


class Summarise(Callback):
    """Hydra's hooks: one process per multirun, memory freed between runs, and at the end a summary and an exit code
    that reports failures."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        # Reading it caches the overrides of the multirun for all jobs, even if hydra.sweep.dir is given by the user.
        _ = config.hydra.sweep.subdir
        folder, exits = Path(config.hydra.sweep.dir).absolute(), ExitStack()
        atexit.register(exits.close)
        exits.callback(runs.drop_empty, folder, "multirun.yaml")  # if no run begins
        try:
            exits.enter_context(runs.occupy(folder))
        except Occupied as error:  # Hydra would only log a warning
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:  # likewise
            print(f"error: {folder}: cannot be made: {error.strerror}. Change hydra.sweep.dir.", file=sys.stderr)
            sys.exit(2)

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        # The parts of a trainer form reference cycles: without this, the weights of several runs would pile up.
        gc.collect()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from thaw.reporting.sweep import summarise
        from thaw.reporting.wandb_report import send_table

        try:
            pages.wait()
            send_table(Path(config.hydra.sweep.dir))
            failed = summarise(Path(config.hydra.sweep.dir))
        except UserError as error:  # Hydra would only warn, and end with exit code 0
            print(f"error: no summary: {error}", file=sys.stderr)
            sys.exit(2)
        except Exception as error:
            traceback.print_exception(error)
            sys.exit(1)
        if failed:
            sys.exit(1)

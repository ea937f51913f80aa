"""Many runs as one: a folder of its own for each, nothing finished is done again, a failure does not stop the others.

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

from thaw import runs
from thaw.errors import Occupied, UserError
from thaw.reporting import pages

# Weights, figures, history and predictions do not depend on these: what is published, what is shown meanwhile, when a
# state is saved to go on from, which processes make the batches. Any other setting counts, also where it acts on the
# last digits only (data.eval_batch_size, freeze.reuse) or on what is kept of a run (trainer.log_every, logger).
INERT = ("resume", "expected", "trainer.progress_bar", "trainer.checkpoint_every", "data.num_workers")
LONGEST = 60  # characters of a folder's name before the digest
ONE_VALUE = re.compile(r"""\[[^\[\]]*\]|'[^']*'|"[^"]*\"""")  # of an override, which may hold commas
log = logging.getLogger(__name__)


def multirun_folder(overrides: Sequence[str]) -> str:
    """The folder of a multirun below ``outputs/multirun``: the same command gives the same.

    Args:
        overrides: ``key=value``, the swept ones with all their values.
    """
    swept = [*(one for one in overrides if one.startswith("sweep=")), *_swept(overrides)]
    said = "_".join(_said(override) for override in [*swept, *(one for one in overrides if one not in swept)])
    return f"{_plain(said) or 'defaults'}_{_digest(overrides)}"


def job_folder(overrides: Sequence[str], every: Sequence[str]) -> str:
    """The folder of one run in that of its multirun: what is swept, with its value in this run.

    Args:
        overrides: of this run.
        every: of the multirun.
    """
    shared = {override.partition("=")[0] for override in every} - {one.partition("=")[0] for one in _swept(every)}
    own = [override for override in overrides if override.partition("=")[0] not in shared]
    said = "_".join(_said(override) for override in own) or "run"  # of nothing that is swept
    # Where something had to be left out, the digest keeps names apart.
    return _plain(said) if _plain(said) == said else f"{_plain(said)}_{_digest(own)}"


def _swept(overrides: Sequence[str]) -> list[str]:
    """The overrides with several values; a list, or a text in quotes, is one."""
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
    """Take up a run of a multirun where an earlier start of the same multirun left it.

    A run that was stopped goes on (``config.resume`` is set); one whose settings have changed since, in ``conf/`` say,
    is set aside under ``earlier/``.

    Args:
        config: of this run.
        folder: of this run.

    Returns:
        The best validation score of a run that is finished already, else None.
    """
    runs.make_absolute(config)
    (folder / runs.FAILURE).unlink(missing_ok=True)
    if not (folder / "config.yaml").is_file():
        return None
    saved = runs.load_config(folder)
    if _comparable(saved) != _comparable(config):
        aside = _free(folder.parent / "earlier" / folder.name)
        aside.parent.mkdir(exist_ok=True)
        os.replace(folder, aside)
        folder.mkdir()
        log.warning("%s had different settings and was moved to %s.", runs.display(folder), runs.display(aside))
        return None
    if saved.get("expected") != config.expected:  # corrected since; tables of published figures read it from the run
        saved.expected = config.expected
        runs.save_config(folder, saved)
    if not (folder / "metrics.json").is_file():
        config.resume = str(folder)
        log.info("Resuming %s, which was stopped.", runs.display(folder))
        return None
    log.info("%s is finished already.", runs.display(folder))
    if changed := _written_since(config.data.path, folder / "data.json"):
        log.warning("%s was written after it began. To train it anew, remove its folder.", runs.display(changed))
    if not (folder / "report.html").is_file():  # killed before it was drawn
        pages.draw(folder)
    score = runs.read_json(folder / "metrics.json")["best"]["score"]
    return float("nan") if score is None else float(score)


def _comparable(config: DictConfig) -> Any:
    """What the results of a run depend on."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for key in INERT:
        group, _, name = key.rpartition(".")
        (plain[group] if group else plain).pop(name, None)
    for group, key in runs.PLACES:  # absolute in the run, also where nothing is there any more
        plain[group][key] = plain[group][key] and os.path.abspath(os.path.expanduser(plain[group][key]))
    return plain


def _written_since(data: str | None, seen: Path) -> Path | None:
    """A file of the data that is younger than what a run noted of it."""
    if not data or not seen.is_file():
        return None
    path, then = Path(data), seen.stat().st_mtime
    files = (file for file in (path, *path.rglob("*")) if file.is_file())
    return next((file for file in files if file.stat().st_mtime > then), None)


def _free(path: Path) -> Path:
    """The path, or the first with a number that does not exist yet."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}_{number}")
    return free


def keep_failure(error: Exception, folder: Path) -> float:
    """Write down why a run failed, so that the others can go on.

    Returns:
        Not a number: what a sweeper takes for a failed trial.
    """
    if isinstance(error, Occupied):  # by an equal run of this multirun, say, whose folder it is
        print(f"error: {error}", file=sys.stderr)
        return float("nan")
    mendable = isinstance(error, UserError)
    said = str(error) if mendable else f"{type(error).__name__}: {error}"
    failure = {"overrides": list(HydraConfig.get().overrides.task), "error": " ".join(said.split())}
    if not mendable:
        traceback.print_exception(error)
        failure["traceback"] = "".join(traceback.format_exception(error))
    if not (folder / "metrics.json").is_file():  # else the run stands, and what failed came after
        runs.write_json(folder / runs.FAILURE, failure)
    print(f"error: {failure['error']}", file=sys.stderr)
    return float("nan")


class Summarise(Callback):
    """Hydra's hooks: one process for each multirun; free memory between runs; at the end a summary, and an exit code
    that tells of failures."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        # Read here, so that all jobs get what is cached: also where hydra.sweep.dir is given, which reads it otherwise.
        _ = config.hydra.sweep.subdir
        folder, exits = Path(config.hydra.sweep.dir).absolute(), ExitStack()
        atexit.register(exits.close)
        exits.callback(runs.drop_empty, folder, "multirun.yaml")  # where no run begins
        try:
            exits.enter_context(runs.occupy(folder))
        except Occupied as error:  # Hydra would only warn of it
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        # The parts of a trainer refer to each other: left to itself Python would keep the weights of several runs.
        gc.collect()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from thaw.reporting.sweep import summarise
        from thaw.reporting.wandb_report import send_table

        pages.wait()
        send_table(Path(config.hydra.sweep.dir))
        if summarise(Path(config.hydra.sweep.dir)):
            sys.exit(1)

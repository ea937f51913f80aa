"""The Hydra sweeper behind ``sweep=optuna``. Hydra imports it at every start, so it imports nothing heavy."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw import study as studies
from thaw.errors import UserError
from thaw.overrides import settings_of
from thaw.rules import SWEEPER_RULES
from thaw.settings import check, neutral

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Runs trials in batches, with any launcher, until the study has ``n_trials``.

    Args:
        settings: those of ``conf/hydra/sweeper/optuna.yaml``.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        studies.load_optuna()
        check({"hydra": {"sweeper": self.settings}}, SWEEPER_RULES)
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the trials that the study still lacks, and report.

        Args:
            arguments: the overrides of the command line.

        Raises:
            UserError: when there is nothing to search, or no trial has a score.
        """
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        fixed, swept = self.split(arguments)
        folder.mkdir(parents=True, exist_ok=True)
        settings, grid = self.settings, self.settings["sampler"] == "grid"
        space = studies.search_space(swept, grid)
        storage, owner = settings["storage"], studies.owner_of(folder, settings["storage"])
        search = self.search(fixed, space)
        study = studies.open_study(folder, storage, settings["sampler"], settings["seed"], search, owner)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        killed = studies.forget_killed(study, space, owner)
        returned: list[Sequence[JobReturn]] = []
        while (left := settings["n_trials"] - len(studies.finished_trials(study))) > 0:
            ahead = studies.untried(study, space) if grid else killed
            if grid and not ahead:
                break
            batch = []
            for _ in range(min(settings["n_jobs"], left, len(ahead) if grid else left)):
                if ahead:
                    study.enqueue_trial(ahead.pop(0))
                batch.append(studies.ask(study, space, owner))
            returned.append(self.launch(study, batch, folder, fixed))
        self.report(study, folder, fixed)
        return returned

    def split(self, arguments: list[str]) -> tuple[list[str], list[Override]]:
        """The overrides that all trials share, and those to search; if a key is given twice, the last one counts."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        preset = [f"{key}={value}" for key, value in self.settings["params"].items()]
        given = {one.get_key_element(): one for one in parser.parse_overrides([*preset, *arguments])}
        swept = [one for one in given.values() if one.is_sweep_override()]
        if "data.fold" in (one.get_key_element() for one in swept):
            hint = "Search with one split, then try the best settings with sweep=folds."
            raise UserError("data.fold: one fold is easier than another, and no setting to search for", hint)
        if not swept:
            example = "'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
            raise UserError("hydra/sweeper=optuna: there is nothing to search", f"Give a range: {example}.")
        fixed = [str(one.input_line) for one in given.values() if not one.is_sweep_override()]
        return fixed, swept

    def search(self, fixed: list[str], space: Mapping[str, Any]) -> dict[str, str]:
        """What the scores depend on: the score itself, fixed settings, and the values that are searched."""
        return {
            **{key: value for key, value in settings_of(fixed).items() if not neutral(key)},
            **{key: str(self.config[key]) for key in ("monitor", "mode")},
            **{key: studies.in_words(values) for key, values in space.items()},
        }

    def launch(self, study: Any, batch: Sequence[Any], folder: Path, fixed: list[str]) -> Sequence[JobReturn]:
        """Launch some trials, and tell the study how they ended."""
        points = [tuple(f"{key}={value}" for key, value in studies.parameters_of(trial).items()) for trial in batch]
        # Equal trials run once and share the result: two would write to the same folder at once.
        jobs: dict[tuple[str, ...], list[str]] = {}
        for point, trial in zip(points, batch, strict=True):
            jobs.setdefault(point, [*fixed, *point, *self.ticket(study, trial, folder)])
        try:
            results = self.launcher.launch(list(jobs.values()), initial_job_idx=batch[0].number)
        except (HydraException, OmegaConfBaseException):
            raise  # these overrides are invalid
        except Exception as reason:  # a process was killed, for example out of memory, and its batch with it
            results = [JobReturn(status=JobStatus.FAILED, _return_value=reason) for _ in jobs]
        by_point = dict(zip(jobs, results, strict=True))
        for trial, point in zip(batch, points, strict=True):
            result = by_point[point]
            run = Path(result.hydra_cfg.hydra.runtime.output_dir) if result.hydra_cfg else folder
            # Not `return_value`, which would raise the exception.
            if error := studies.tell(study, trial.number, result._return_value, run):
                log.warning("Trial %d failed: %s", trial.number, error)
        return results

    def ticket(self, study: Any, trial: Any, folder: Path) -> list[str]:
        """The override that tells a run, in whatever process, which trial it is, so that it can be pruned."""
        settings = self.settings
        if settings["pruner"] == "none":
            return []
        pruner = {"n_startup_trials": settings["startup_trials"], "n_warmup_steps": settings["warmup_validations"] + 1}
        text = studies.ticket(study, trial.number, settings["storage"], folder, pruner)
        return [f"hydra.sweeper.trial={QuotedString(text, Quote.single).with_quotes()}"]

    def report(self, study: Any, folder: Path, fixed: list[str]) -> None:
        """Write the page and the table of the study, and log which trial is the best."""
        from thaw.reporting.study_page import write_study
        from thaw.reporting.sweep import summarise

        rows = list(studies.rows(study))
        script, monitor, mode = f"{self.config.hydra.job.config_name}.py", self.config.monitor, self.config.mode
        # Without the preset: the command shown repeats a single run.
        shared = [item for item in fixed if not item.startswith("sweep=")]
        for line in write_study(folder, rows, studies.importance(study), monitor, mode, script, shared):
            log.info(line)
        if not any(row["state"] == "complete" for row in rows):
            with suppress(UserError):  # no run left a folder
                summarise(folder)  # after an error, Hydra does not call the hook that does this
            reason = next((row["error"] for row in rows if row["error"]), "all were pruned")
            raise UserError(f"none of {len(rows)} trials gave a score: {reason}")

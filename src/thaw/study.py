"""An Optuna study as a sweep sees it: its search space in Hydra's syntax, its trials, and their storage.

Optuna (Akiba et al. 2019) is used through its ask-and-tell interface, and imported lazily since it is an extra.
"""

import contextlib
import itertools
import json
import math
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.errors import Pruned, UserError, require
from thaw.files import read_json
from thaw.runs import FAILURE

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

DATABASE = "study.db"
FRESH = "Give the new search a folder of its own: hydra.sweep.dir=..."
SEARCH = "search"  # attribute of a study: what its scores depend on
OWNER = "owner"  # attribute of a trial: the sweep it belongs to, see `owner_of`
KILLED = "killed"  # attribute of a trial whose process was killed: it does not count and is tried again


def load_optuna() -> Any:
    """The package, without its informational log messages."""
    optuna = require("optuna", "sweep=optuna", "optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(
    folder: Path, storage: str | None, sampler: str, seed: int, search: Mapping[str, str], owner: str | None = None
) -> "Study":
    """The study of a sweep's folder: a new one, or the one to continue.

    Args:
        folder: of the sweep.
        storage: where trials are kept, as a URL of SQLAlchemy; None for SQLite in the folder.
        sampler: ``tpe``, ``random``, or ``grid``, whose trials `untried` lists.
        seed: of the sampler.
        search: what the scores depend on, setting -> text: ``monitor``, ``mode``, fixed settings, search space.
        owner: the name of this sweep, see `owner_of`.

    Raises:
        UserError: when the existing study is a different search.
    """
    optuna = load_optuna()
    samplers = optuna.samplers
    study = optuna.create_study(
        storage=connect(storage or f"sqlite:///{folder / DATABASE}"),
        study_name=folder.name,
        direction="maximize" if search["mode"] == "max" else "minimize",
        load_if_exists=True,
    )
    begun = dict(study.user_attrs.get(SEARCH, {}) if study.trials else search)
    begun["mode"] = "max" if study.direction == optuna.study.StudyDirection.MAXIMIZE else "min"
    if other := [key for key in {**begun, **search} if begun.get(key) != search.get(key)]:
        said = " and ".join(f"with {key}={begun[key]}" if key in begun else f"without {key}" for key in other)
        raise UserError(f"{study.study_name}: this study was begun {said}", FRESH)
    if not study.trials:
        study.set_user_attr(SEARCH, dict(search))
    # The seed changes with the number of trials, or a continued study would draw the first ones again, and with the
    # owner, or the sweeps of several machines would all draw the same.
    seed = (seed + len(study.trials) + zlib.crc32((owner or "").encode())) % 2**32
    study.sampler = samplers.TPESampler(seed=seed) if sampler == "tpe" else samplers.RandomSampler(seed=seed)
    return study


def connect(url: str) -> Any:
    """A storage. Several processes may write to one SQLite file, so each waits for its turn."""
    optuna = load_optuna()
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}  # seconds
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


def search_space(overrides: Sequence["Override"], grid: bool) -> dict[str, "BaseDistribution"]:
    """The distribution that Optuna draws each swept setting from.

    Choices are texts, as they will stand on the command line. In a grid every setting has choices.

    Raises:
        UserError: when an override has an unknown tag, or cannot be part of a grid.
    """
    return {one.get_key_element(): _distribution(one, grid) for one in overrides if one.is_sweep_override()}


def _distribution(override: "Override", grid: bool) -> "BaseDistribution":
    kinds = load_optuna().distributions
    sweep: Any = override.value()
    tags: set[str] = getattr(sweep, "tags", set())  # a glob has none
    if unknown := tags - {"log"}:
        raise UserError(
            f"{override.input_line}: unknown tag {min(unknown)}", "The only one is log: tag(log, interval(a, b))."
        )
    if override.is_interval_sweep():
        if grid:
            raise UserError(f"{override.input_line}: a grid has no intervals", "Give a list, or sampler=tpe.")
        low, high = sweep.start, sweep.end
        options: dict[str, Any] = {"log": "log" in tags}
    elif grid or override.is_choice_sweep() or sweep.step < 0:
        return kinds.CategoricalDistribution(list(override.sweep_string_iterator()))
    else:
        values = list(sweep.range())
        if not values:
            raise UserError(f"{override.input_line}: an empty range", "Change the range.")
        low, high = values[0], values[-1]
        options = {"log": True} if "log" in tags else {"step": sweep.step}
    kind = kinds.IntDistribution if isinstance(low, int) else kinds.FloatDistribution
    try:
        return kind(low, high, **options)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}", "Change the range.") from error


def in_words(values: Any) -> str:
    """A distribution of Optuna in words: ``none,head``, or ``0.0001 to 0.1, log``."""
    if hasattr(values, "choices"):
        return ",".join(values.choices)
    how = (", log" if values.log else "") + (f" by {values.step}" if values.step else "")
    return f"{values.low} to {values.high}{how}"


def ask(study: "Study", space: dict[str, "BaseDistribution"], owner: str | None) -> "Trial":
    """The next trial of a sweep.

    Args:
        owner: the name of the sweep, see `owner_of`.

    Raises:
        UserError: when the study has searched other values so far.
    """
    try:
        trial = study.ask(space)
    except ValueError as error:
        raise UserError(f"{study.study_name}: this study has searched other values: {error}", FRESH) from error
    trial.set_user_attr(OWNER, owner)
    return trial


def owner_of(folder: Path, storage: str | None) -> str | None:
    """A name for the sweep in a folder, to tell it from others in a shared storage; None without one."""
    return f"{socket.gethostname()}:{folder}" if storage else None


def forget_killed(study: "Study", space: dict[str, "BaseDistribution"], owner: str | None) -> list[dict[str, Any]]:
    """Mark trials that were running when their sweep was killed as failed.

    Trials of other sweeps in a shared storage are left alone, since they may still be running.

    Returns:
        The parameters of the killed trials, to be tried again.
    """
    state = load_optuna().trial.TrialState
    running = study.get_trials(states=(state.RUNNING,))
    killed = [trial for trial in running if trial.user_attrs.get(OWNER) == owner]
    for trial in killed:
        _mark(study, trial.number, KILLED, True)
        study.tell(trial.number, state=state.FAIL)
    return [trial.params for trial in killed if trial.distributions == space]


def finished_trials(study: "Study") -> list[Any]:
    """The trials that ended with a score, pruned or failed; killed ones do not count."""
    return [trial for trial in study.trials if trial.state.is_finished() and KILLED not in trial.user_attrs]


def untried(study: "Study", space: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of the grid that no trial has taken yet, on this machine or another."""
    running = study.get_trials(states=(load_optuna().trial.TrialState.RUNNING,))
    done = [trial.params for trial in [*finished_trials(study), *running]]
    grid = (dict(zip(space, point, strict=True)) for point in itertools.product(*(s.choices for s in space.values())))
    return [point for point in grid if point not in done]


def tell(study: "Study", number: int, outcome: Any, folder: Path) -> str | None:
    """Record how a trial ended.

    Args:
        outcome: its score, or the exception that ended it.
        folder: of the run.

    Returns:
        Why it failed, or None.
    """
    state = load_optuna().trial.TrialState
    _mark(study, number, "folder", str(folder))
    if isinstance(outcome, Pruned):
        study.tell(number, state=state.PRUNED)
        return None
    if isinstance(outcome, int | float) and math.isfinite(outcome):
        study.tell(number, float(outcome))
        return None
    error = str(outcome) if isinstance(outcome, Exception) else f"the score is {outcome}"
    if (folder / FAILURE).is_file():
        error = read_json(folder / FAILURE)["error"]
    _mark(study, number, "error", error)
    study.tell(number, state=state.FAIL)
    return error


def _mark(study: "Study", number: int, name: str, value: Any) -> None:
    _trial(study, number).set_user_attr(name, value)


def _trial(study: "Study", number: int) -> "Trial":
    return load_optuna().trial.Trial(study, study.trials[number]._trial_id)


def ticket(study: "Study", number: int, storage: str | None, folder: Path, pruner: dict[str, int]) -> str:
    """The value of ``hydra.sweeper.trial``, with which a run can `join` its study from any process.

    Args:
        pruner: arguments of the median pruner, which storages do not save.
    """
    url = storage or f"sqlite:///{folder / DATABASE}"
    return json.dumps({"storage": url, "study": study.study_name, "number": number, "pruner": pruner})


def join(held: str) -> "Trial":
    """The trial that a `ticket` names, with the pruner of its study."""
    optuna, of = load_optuna(), json.loads(held)
    pruner = optuna.pruners.MedianPruner(**of["pruner"])
    study = optuna.load_study(study_name=of["study"], storage=connect(of["storage"]), pruner=pruner)
    return _trial(study, of["number"])


def parameters_of(trial: Any) -> dict[str, str]:
    """The parameters of a trial as its run gets them; continuous ones are rounded to four significant digits."""
    free = {key for key, own in trial.distributions.items() if getattr(own, "step", 1) is None}
    return {key: f"{value:.4g}" if key in free else str(value) for key, value in trial.params.items()}


def importance(study: "Study") -> dict[str, float]:
    """How much of the variation in scores each parameter explains, by Optuna's default method; empty if unknown."""
    optuna = load_optuna()
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < 2 or len({trial.value for trial in done}) < 2:
        return {}
    with contextlib.suppress(ValueError, RuntimeError):  # such as a parameter with a single value
        return optuna.importance.get_param_importances(study)
    return {}


def rows(study: "Study") -> Iterator[dict[str, Any]]:
    """One plain dict per trial: number, state, score, parameters, seconds, folder, error."""
    for trial in study.trials:
        state = KILLED if KILLED in trial.user_attrs else trial.state.name.lower()
        yield {
            "trial": trial.number,
            "state": state,
            "score": trial.value,
            "parameters": parameters_of(trial),
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "folder": trial.user_attrs.get("folder", ""),
            "error": trial.user_attrs.get("error", ""),
        }

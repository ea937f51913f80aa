"""The only call of hydra.utils.instantiate, behind an allow-list, so that a config cannot run arbitrary code."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from thaw.errors import UserError, reason
from thaw.script import near

# The folder own/ beside the scripts is for code of the user's.
ALLOWED = (
    "torch.optim.",
    "pytorch_lightning.callbacks.",
    "pytorch_lightning.loggers.",
    "sklearn.metrics.",
    "thaw.",
    "own.",
)


def build(config: dict[str, Any], key: str, **arguments: Any) -> Any:
    """Build the object whose ``_target_`` the config names.

    Args:
        config: holds ``_target_`` and the keyword arguments.
        key: of the config, for messages.
        arguments: keyword arguments that no config file can hold, such as parameters.

    Raises:
        UserError: when the target, or one nested in it, is not on the allow-list, needs a package that is not
            installed, or rejects its arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    for target in _targets(config):
        if not target.startswith(ALLOWED):
            raise UserError(f"{key}: {target} may not be built from a config", f"Allowed: {', '.join(ALLOWED)}.")
    try:
        return instantiate(config, **arguments, _convert_="all")
    except InstantiationException as error:
        cause, target = error.__cause__, f"{key}: {config['_target_']}"
        if isinstance(cause, ModuleNotFoundError):  # raised by the target, not by its lookup
            package = f": pip install {cause.name.partition('.')[0]}" if cause.name else ""
            raise UserError(f"{target}: {cause}", f"Install the package{package}.") from error
        if isinstance(cause, ImportError):
            where = ", and that own/ stands beside the scripts" if config["_target_"].startswith("own.") else ""
            said = f"there is no such class or function{_alike(config['_target_'])}"
            raise UserError(f"{target}: {said}", f"Check its name{where}.") from error
        raise UserError(f"{target} could not be built: {reason(cause or error)}", _remedy(config, key)) from error


def build_function(config: dict[str, Any], key: str) -> Callable[..., Any]:
    """The function that the config names, which gets its other settings at each call; of a class, an object of it.

    Raises:
        UserError: as `build` does.
    """
    function = build({**config, "_partial_": True}, key)
    if inspect.isclass(function.func):
        function = build(config, key)
    elif _not_taken(config):
        raise UserError(f"{key}: {config['_target_']} does not take all of its settings", _remedy(config, key))
    if not callable(function):
        raise UserError(f"{key}: {config['_target_']} cannot be called", "Give it a method __call__.")
    return function


def _alike(target: str) -> str:
    """``; did you mean x?`` of the module of a target that has no such name, or nothing."""
    module, _, _ = target.rpartition(".")
    try:
        return near(target, [f"{module}.{name}" for name in vars(import_module(module)) if not name.startswith("_")])
    except ImportError:
        return ""


def _remedy(config: dict[str, Any], key: str) -> str:
    lacks = " ".join(f"'~{key}.{name}'" for name in _not_taken(config))
    return f"Leave out what it does not take: {lacks}." if lacks else "Check its settings."


def takes(config: dict[str, Any], argument: str) -> bool:
    """Whether the target names an argument; also if there is no such target, which `build` reports."""
    try:
        return argument in _arguments(config)
    except Exception:  # whatever an import raises
        return True


def _arguments(config: dict[str, Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of the target."""
    from hydra.utils import get_object

    return inspect.signature(get_object(config["_target_"])).parameters


def _not_taken(config: dict[str, Any]) -> list[str]:
    """The settings that are no arguments of the target."""
    taken = _arguments(config)
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return []
    return [name for name in config if not name.startswith("_") and name not in taken]


def _targets(plain: Any) -> list[str]:
    if isinstance(plain, dict):
        own = [str(plain["_target_"])] if "_target_" in plain else []
        return own + [target for value in plain.values() for target in _targets(value)]
    if isinstance(plain, list):
        return [target for value in plain for target in _targets(value)]
    return []

"""The only call of hydra.utils.instantiate, behind an allow-list, so that a config cannot run arbitrary code."""

from typing import Any

from thaw.errors import UserError

ALLOWED = ("torch.optim.", "pytorch_lightning.callbacks.", "pytorch_lightning.loggers.", "thaw.")


def build(config: dict[str, Any], **arguments: Any) -> Any:
    """Build the object whose ``_target_`` the config names.

    Args:
        config: holds ``_target_`` and the keyword arguments.
        arguments: keyword arguments that no config file can hold, such as parameters.

    Raises:
        UserError: when the target, or one nested in it, is not on the allow-list, needs a package that is not
            installed, or rejects its arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    for target in _targets(config):
        if not target.startswith(ALLOWED):
            raise UserError(f"_target_: {target} may not be built from a config", f"Allowed: {', '.join(ALLOWED)}.")
    try:
        return instantiate(config, **arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(lacking := error.__cause__, ModuleNotFoundError):  # raised by the target, not by its lookup
            package = f": pip install {lacking.name.partition('.')[0]}" if lacking.name else ""
            raise UserError(f"{config['_target_']}: {lacking}", f"Install the package{package}.") from error
        reason = str(error).split("full_key")[0]
        raise UserError(f"{config['_target_']} could not be built: {reason}", "Check its settings.") from error


def _targets(plain: Any) -> list[str]:
    if isinstance(plain, dict):
        own = [str(plain["_target_"])] if "_target_" in plain else []
        return own + [target for value in plain.values() for target in _targets(value)]
    if isinstance(plain, list):
        return [target for value in plain for target in _targets(value)]
    return []

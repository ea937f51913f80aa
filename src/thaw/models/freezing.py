"""Which parameters train: each strategy is a pure function of the network's blocks and the epoch.

Applied before the optimizer exists. Parameters that train at some stage of the run are in the optimizer from the start;
while they are frozen, ``requires_grad`` is off and they have no gradient, so that AdamW skips them, decay included.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from thaw.errors import UserError, counted
from thaw.models.encoder import FEED_FORWARD_OUT, KEY_VALUE, Block, blocks, head_names, layers_of, linear_names

ADAPTERS = ("lora", "dora", "ia3")
STAGED = ("gradual", "lp_ft")
ASIDE = ".original_module."  # in the names of the head that adapters put aside: a copy which nothing uses
STRATEGIES = ("none", "head", "first_n", "all_but_last_n", "embeddings", "bitfit", "pattern", *STAGED, *ADAPTERS)


def trainable(parts: Sequence[Block], freeze: dict[str, Any], epoch: int | None = None) -> set[str]:
    """Names of the parameters that a strategy trains.

    Args:
        parts: the blocks of the network, bottom first.
        freeze: the ``freeze`` group of the config.
        epoch: counted from 0; None for all parameters that train at some stage.

    Raises:
        UserError: for an unknown strategy, or a number of layers that it cannot train.
    """
    name = freeze["name"]
    _, *layers, head = parts
    if name == "none":
        return _names(parts)
    if name == "head":
        return _names([head])
    if name == "first_n":
        return _names([*layers[checked_count(freeze["n"], layers) :], head])
    if name == "all_but_last_n":
        return _names([*layers[len(layers) - checked_count(freeze["n"], layers) :], head])
    if name == "embeddings":
        return _names([*layers, head])
    if name == "pattern":
        return _matching(parts, freeze["pattern"]) | _names([head])
    if name == "bitfit":
        within = parts[:-1] if freeze.get("n") is None else layers[-checked_count(freeze["n"], layers, 1) :]
        biases = {name for name in _names(within) if name.rsplit(".", 1)[-1] == "bias"}
        if not biases:
            raise UserError("freeze=bitfit trains biases, and this encoder has none", "Use freeze=lora or ia3.")
        return biases | _names([head])
    if name == "gradual":
        # Howard and Ruder 2018: the head first, then one more layer from the top at each stage, the embeddings last.
        stage = len(parts) if epoch is None else epoch // freeze["every"]
        return _names(parts[max(len(parts) - 1 - stage, 0) :])
    if name == "lp_ft":
        # Kumar et al. 2022: a linear probe first, then everything, starting from the probe.
        return _names([head] if probing(freeze, epoch) else parts)
    if name in ADAPTERS:
        adapters = {name for name in _names(parts[:-1]) if "lora_" in name or "ia3_" in name}
        return adapters | {name for name in _names([head]) if ASIDE not in name}
    raise UserError(f"freeze.name={name} is not known", f"Choose one of: {', '.join(STRATEGIES)}.")


def probing(freeze: dict[str, Any], epoch: int | None) -> bool:
    """Whether an epoch belongs to the probe stage of ``lp_ft``."""
    return freeze["name"] == "lp_ft" and epoch is not None and epoch < freeze["probe_epochs"]


def frozen_depth(parts: Sequence[Block], names: set[str]) -> int:
    """How many layers from the bottom are frozen, if the embeddings are frozen as well; otherwise 0."""
    frozen = [not any(name in names for name, _ in part.parameters()) for part in parts[:-1]]
    return max(([*frozen, False]).index(False) - 1, 0)


def checked_count(n: int | None, layers: Sequence[Any], least: int = 0) -> int:
    """``freeze.n``, checked against the number of layers."""
    if n is None or not least <= n <= len(layers):
        raise UserError(
            f"freeze.n={'null' if n is None else n}, but this encoder has {counted(len(layers), 'layer')} with "
            "parameters of their own",
            f"Give a whole number from {least} to {len(layers)}{'; freeze=head trains none' if n == 0 else ''}.",
        )
    return n


def _names(parts: Sequence[Block]) -> set[str]:
    return {name for part in parts for name, _ in part.parameters()}


def _matching(parts: Sequence[Block], pattern: str) -> set[str]:
    """The parameters below the head of whose names a regular expression matches a part."""
    names = [name for part in parts[:-1] for name, _ in part.parameters()]
    found = {name for name in names if re.search(pattern, name)}
    if not found:
        shown = f"{names[0]}, {names[len(names) // 2]}, {names[-1]}"
        raise UserError(
            f"freeze.pattern={pattern} matches no parameter below the head", f"Their names are like {shown}."
        )
    return found


def add_adapters(network: nn.Module, freeze: dict[str, Any]) -> Any:
    """Insert LoRA, DoRA or IA3 adapters into the network, in place.

    Returns:
        The peft model around the network, for saving and merging; None if the strategy uses no adapters.
    """
    if freeze["name"] not in ADAPTERS:
        return None
    from peft import IA3Config, LoraConfig, PeftModel

    name, n = freeze["name"], freeze.get("n")
    config: Any
    if n is not None:
        checked_count(n, layers_of(network), 1)
    try:
        if name == "ia3":
            keys_values, feed_forward = (linear_names(network, n, names) for names in (KEY_VALUE, FEED_FORWARD_OUT))
            if not keys_values or not feed_forward:
                raise UserError("freeze=ia3: the names of the encoder's matrices are not known", "Use freeze=lora.")
            config = IA3Config(
                target_modules=keys_values + feed_forward,
                feedforward_modules=feed_forward,
                modules_to_save=head_names(network),
            )
        else:
            config = LoraConfig(
                r=freeze["rank"],
                lora_alpha=freeze["alpha"],
                lora_dropout=freeze["dropout"],
                use_dora=name == "dora",
                target_modules=_matrices(network, n, freeze["target_modules"]),
                modules_to_save=head_names(network),
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute of transformers by its old name
            return PeftModel(network, config)
    except (ValueError, TypeError) as error:
        raise UserError(f"freeze={name}: {error}", "Check the group freeze.") from None


def _matrices(network: nn.Module, n: int | None, wanted: Sequence[str] | None) -> list[str]:
    """The linear layers within the last ``n`` layers, or those with the wanted names; the head trains as a whole."""
    if not wanted:
        return linear_names(network, n)
    found = linear_names(network, n, re.compile(rf"(^|\.)({'|'.join(map(re.escape, wanted))})$"))
    if not found:
        known = sorted({name.rpartition(".")[2] for name in linear_names(network)})
        raise UserError(
            f"freeze.target_modules={wanted}: no linear layer has such a name", f"Known: {', '.join(known)}."
        )
    return found


def freeze_to(parts: Sequence[Block], names: set[str]) -> None:
    """Make exactly the named parameters trainable."""
    for part in parts:
        for name, parameter in part.parameters():
            parameter.requires_grad_(name in names)


def keep_frozen_in_eval(parts: Sequence[Block]) -> None:
    """Keep frozen blocks in eval mode: without dropout, their output depends on the input alone."""
    for part in parts:
        if not any(parameter.requires_grad for _, parameter in part.parameters()):
            for _, module in part.modules:
                module.eval()


def parameter_table(
    network: nn.Module, names: set[str], rates: dict[str, float], probe_lr: float | None
) -> list[dict[str, Any]]:
    """One row per block: parameters, how many of them train, and the learning rate, or a list of one after the other.

    Args:
        names: parameters that train at some stage of the run.
        rates: the peak learning rate of each of them.
        probe_lr: that of the head in a probe stage.
    """
    table = []
    sizes = {name: value.numel() for name, value in network.state_dict().items()}
    for part in (parts := blocks(network)):
        members = [name for name, _ in part.parameters() if ASIDE not in name]
        training = [name for name in members if name in names]
        own = sorted({rates[name] for name in training})
        if probe_lr is not None and part is parts[-1]:
            own = list(dict.fromkeys([probe_lr, *own]))
        table.append(
            {
                "block": part.name,
                "parameters": sum(sizes[name] for name in members),
                "trainable": sum(sizes[name] for name in training),
                "learning_rate": own[0] if len(own) == 1 else own or None,
            }
        )
    return table

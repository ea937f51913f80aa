"""Loads any encoder with a head for the task; the one place that knows where its embeddings, layers and head are."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from thaw.errors import UserError
from thaw.labels import LabelSet, Task
from thaw.models.head import labels_of_head, take_over
from thaw.models.segments import add_segment_ids

# The linear layers that IA3 rescales (Liu et al. 2022), by the names that the architectures give them.
KEY_VALUE = re.compile(r"(^|\.)(key|value|k|v|k_lin|v_lin|k_proj|v_proj|key_proj|value_proj|Wqkv)$")
FEED_FORWARD_OUT = re.compile(r"(^|\.)(lin2|ffn_output|down_proj|mlp\.Wo|(?<!attention\.)output\.dense)$")
# Families whose positions start after the padding id, so that they have fewer positions than rows in their table.
COUNT_FROM_PADDING = (
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A part of the network that is frozen or trained as a whole.

    Args:
        name: ``embeddings``, ``layer 1`` .. ``layer n`` counted from the bottom, or ``head``.
        modules: the modules it consists of, with their names in the network.
    """

    name: str
    modules: tuple[tuple[str, nn.Module], ...]

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names (as in ``model.named_parameters()``) and parameters."""
        for prefix, module in self.modules:
            for name, parameter in module.named_parameters():
                yield f"{prefix}.{name}", parameter


def load_tokenizer(folder: Path, task: Task, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of an encoder.

    For token tasks, byte-level tokenizers are set to put a space before each word: otherwise they silently merge
    pre-split words.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises plain Exceptions for damaged files
        raise UserError(f"{folder}: the tokenizer cannot be loaded: {error}", "Is it a saved encoder?") from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: not a fast tokenizer with a padding token", "Choose an encoder that has one.")
    if task == "token":
        # Set in the tokenizer itself, since not every tokenizer class passes the option on (ModernBERT's does not).
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        if _set_prefix_space(state["pre_tokenizer"]):
            tokenizer = type(tokenizer)(
                tokenizer_object=Tokenizer.from_str(json.dumps(state)),
                **{**tokenizer.init_kwargs, "add_prefix_space": True},
            )
    return tokenizer


def _set_prefix_space(state: Any) -> bool:
    """Set ``add_prefix_space`` in every byte-level step of a pre-tokenizer's state; returns whether there was one."""
    if isinstance(state, list):
        return sum(_set_prefix_space(item) for item in state) > 0
    if not isinstance(state, dict):
        return False
    if state.get("type") == "ByteLevel":
        state["add_prefix_space"] = True
        return True
    return _set_prefix_space(state.get("pretokenizers"))


def encoder_config(folder: Path, trust_remote_code: bool = False) -> Any:
    """The config of a saved encoder.

    Raises:
        UserError: when it is missing, damaged, or of an architecture that transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{folder}: its config cannot be read: {error}", "Is it a saved encoder?") from None


def length_limit(folder: Path, trust_remote_code: bool = False) -> int:
    """The maximum length of an encoder in tokens, special tokens included; 512 where it states none."""
    config = encoder_config(folder, trust_remote_code)
    positions = getattr(config, "max_position_embeddings", None) or 0
    limit = int(positions) if positions > 0 else 512  # XLNet's is -1, since its positions are relative
    if config.model_type in COUNT_FROM_PADDING:
        limit -= config.pad_token_id + 1
    settings = folder / "tokenizer_config.json"
    stated = json.loads(settings.read_text(encoding="utf-8")).get("model_max_length") if settings.is_file() else None
    return min(limit, int(stated or limit))  # unknown lengths are stated as some 10**30


def resolve_length(wanted: int | None, limit: int) -> int:
    """Check ``data.max_length`` against the maximum of the encoder; None means the maximum."""
    if wanted is None:
        return limit
    if not 3 <= wanted <= limit:
        raise UserError(f"data.max_length={wanted}, but this encoder takes 3 to {limit} tokens", "Change it.")
    return wanted


def load_encoder(folder: Path, labels: LabelSet, model: dict[str, Any]) -> nn.Module:
    """An encoder with a head for the labels, in float32, which tells the two texts of a pair apart by itself.

    The head is new, unless the folder holds a fine-tuned encoder: then labels of the same names keep theirs. If its
    labels have no names, or it is not saved as one safetensors file, a head of the right size is kept as it is.

    Args:
        folder: a saved encoder.
        labels: task and names; the names go into the config, so that pipelines show them.
        model: the ``model`` group of the config.

    Raises:
        UserError: when the model cannot be loaded for the task, or a setting does not fit it.
    """
    auto, trust = auto_model(labels.task), bool(model.get("trust_remote_code", False))
    config = encoder_config(folder, trust)
    before = () if model.get("random_init") else labels_of_head(config, folder)
    _configure(config, labels, model.get("dropout"))
    options = {"attn_implementation": model["attention"]} if model.get("attention") else {}
    try:
        if model.get("random_init"):
            network = auto.from_config(config, dtype=torch.float32, trust_remote_code=trust, **options)
            new = set()
        else:
            network, loaded = auto.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust,
                ignore_mismatched_sizes=True,  # a fine-tuned checkpoint with other labels is a fine starting point
                output_loading_info=True,
                **options,
            )
            new = {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])}
    except Exception as error:  # whatever the readers of damaged files raise
        raise UserError(f"{folder}: cannot be loaded for a {labels.task} task: {error}", "Choose another encoder or "
                        "model.attention.") from error  # fmt: skip
    _check_loaded(network, new, folder)
    if before:
        take_over(network, folder, before, labels.names)
    if model.get("gradient_checkpointing"):
        if not network.supports_gradient_checkpointing:
            raise UserError(
                f"{config.model_type} has no gradient checkpointing", "Set model.gradient_checkpointing=false."
            )
        network.activation_checkpointing_enable()
    if labels.pairs:
        add_segment_ids(body_of(network)[1], load_tokenizer(folder, labels.task, trust))
    return network.float()


def auto_model(task: Task) -> Any:
    """The class of transformers' that loads a network for a task, and which is silent from now on."""
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    transformers.logging.set_verbosity_error()  # it would warn that the head is new
    transformers.logging.disable_progress_bar()
    return AutoModelForTokenClassification if task == "token" else AutoModelForSequenceClassification


def _configure(config: Any, labels: LabelSet, dropout: float | None) -> None:
    """Write the task, its labels and the dropout, if one is set, into the config of an encoder."""
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels.names))
    config.label2id = dict(labels.ids)
    config.problem_type = {"sequence": "single_label_classification", "multi_label": "multi_label_classification"}.get(
        labels.task
    )
    if dropout is not None:
        set_dropout(config, dropout)


def _check_loaded(network: Any, new: set[str], folder: Path) -> None:
    """Refuse a checkpoint that lacks weights of the encoder itself; only the head may be new."""
    body = {name for block in blocks(network)[:-1] for name, _ in block.parameters()}
    if lost := sorted(body & new):
        raise UserError(
            f"{folder}: {len(lost)} weights of the encoder are missing or have another size, such as {lost[0]}",
            "The checkpoint does not fit its config.json; model.random_init=true starts without it.",
        )


def set_dropout(config: Any, rate: float) -> None:
    """Set every dropout of an encoder and its head, whatever the architecture calls them."""
    for name, value in config.to_dict().items():
        if "dropout" in name and (value is None or isinstance(value, int | float)):
            setattr(config, name, rate)


def layers_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of an encoder from the bottom up, with their names.

    They are the module list of the body with the most parameters. ALBERT's shared layer counts once.

    Raises:
        UserError: when the network has no list of layers.
    """
    prefix, body = body_of(network)
    lists = [
        (name, module) for name, module in body.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not lists:
        raise UserError(f"{type(network).__name__}: no list of layers was found", "thaw does not support this encoder.")
    name, stack = max(lists, key=lambda pair: sum(parameter.numel() for parameter in pair[1].parameters()))
    return [(f"{prefix}.{name}.{i}", layer) for i, layer in enumerate(stack)]


def body_of(network: Any) -> tuple[str, Any]:
    """The encoder below the head, and its name within the network."""
    prefix = network.base_model_prefix
    body = getattr(network, prefix, None)
    if body is None:
        raise UserError(f"{type(network).__name__}: no encoder under {prefix!r}", "thaw does not support this model.")
    return prefix, body


def blocks(network: Any) -> list[Block]:
    """The network from the bottom up: embeddings, each layer, head. Every parameter is in exactly one block.

    Parameters that all layers share (relative positions, the projection that widens small embeddings) belong to the
    embeddings; everything after the layers (pooler, final norm, classifier) is the head.

    Raises:
        UserError: when the network does not have this structure.
    """
    prefix, body = body_of(network)
    layers = layers_of(network)
    taken = {id(layer) for _, layer in layers}
    children = [(f"{prefix}.{name}", child) for name, child in body.named_children()]
    holder = next(i for i, (_, child) in enumerate(children) if any(id(inner) in taken for inner in child.modules()))
    # Some families register their pooler before the layers.
    above = [pair for i, pair in enumerate(children) if i > holder or pair[0].endswith(".pooler")]
    below = [pair for pair in children[:holder] if pair not in above] + list(_without(*children[holder], taken))
    outside = [(name, child) for name, child in network.named_children() if name != prefix]
    parts = [
        Block("embeddings", tuple(below)),
        *(Block(f"layer {i}", (layer,)) for i, layer in enumerate(layers, start=1)),
        Block("head", (*above, *outside)),
    ]
    if sorted(name for part in parts for name, _ in part.parameters()) != sorted(dict(network.named_parameters())):
        raise UserError(
            f"{type(network).__name__} does not consist of embeddings, layers and a head",
            "thaw does not support this encoder.",
        )
    return parts


def _without(prefix: str, module: nn.Module, taken: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """The largest submodules that contain none of the modules already taken."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}"
        if id(child) in taken:
            continue
        if any(id(inner) in taken for inner in child.modules()):
            yield from _without(path, child, taken)
        else:
            yield path, child


def linear_names(network: Any, n: int | None = None, pattern: re.Pattern[str] | None = None) -> list[str]:
    """Full names of the linear layers within the encoder's layers, or its last ``n``, that match a pattern."""
    return [
        f"{prefix}.{name}"
        for prefix, layer in layers_of(network)[-n if n else 0 :]
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and (pattern is None or pattern.search(f"{prefix}.{name}"))
    ]


def head_names(network: Any) -> list[str]:
    """Names of the head's innermost modules that have parameters of their own."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in blocks(network)[-1].parameters()))

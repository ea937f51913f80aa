"""Kinds of values that settings take, each with its name in messages."""

import codecs
import math
import re
from collections.abc import Callable
from typing import Any

Rule = tuple[Callable[[Any], bool], str]
"""Whether a setting accepts a value, and what it accepts, in words."""
DATA_PATHS = ("path", "validation_path", "test_path", "corrections")  # settings of ``data`` that name files or folders


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _encoding(value: Any) -> bool:
    try:
        return bool(codecs.lookup(value)._is_text_encoding)  # base64 is a codec, too
    except (LookupError, TypeError, ValueError):
        return False


def _numbers(value: Any, kind: Any, rule: Rule) -> bool:
    """Whether a list, or a dict, holds what a rule accepts."""
    return isinstance(value, kind) and all(map(rule[0], value.values() if isinstance(value, dict) else value))


def _pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and value != "" and bool(re.compile(value))
    except re.error:
        return False


FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
SEED: Rule = (lambda value: _whole(value) and 0 <= value < 2**32, "a whole number from 0 to 2**32 - 1")
COUNT: Rule = (lambda value: _whole(value) and value >= 1, "a whole number of at least 1")
SEVERAL_PARTS: Rule = (lambda value: _whole(value) and value > 1, "a whole number of at least 2")
NATURAL: Rule = (lambda value: _whole(value) and value >= 0, "a whole number of at least 0")
POSITIVE: Rule = (lambda value: _number(value) and value > 0, "a number above 0")
NONNEGATIVE: Rule = (lambda value: _number(value) and value >= 0, "a number of at least 0")
FRACTION: Rule = (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1")
UP_TO_ONE: Rule = (lambda value: _number(value) and 0 < value <= 1, "a number above 0 and at most 1")
BELOW_ONE: Rule = (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1")
SIZE: Rule = (
    lambda value: COUNT[0](value) or (POSITIVE[0](value) and value < 1),
    "a whole number of rows, or a fraction below 1",
)
SHARE: Rule = (lambda value: COUNT[0](value) or UP_TO_ONE[0](value), "a whole number of rows, or a fraction up to 1")
SIZE_OR_0: Rule = (lambda value: (_number(value) and value == 0) or SIZE[0](value), f"0, {SIZE[1]}")
TEXT: Rule = (lambda value: isinstance(value, str) and bool(value), "a text")
PAGE: Rule = (lambda value: TEXT[0](value) and value.endswith(".html"), "a file name that ends in .html")


def one_of(*choices: str) -> Rule:
    return (lambda value: value in choices), f"one of: {', '.join(choices)}"


def or_null(rule: Rule) -> Rule:
    return (lambda value: value is None or rule[0](value)), f"{rule[1]}, or null"


OPTIONAL_TEXT = or_null(TEXT)
PATTERN: Rule = (_pattern, "a regular expression for names of parameters")
STRING: Rule = or_null((lambda value: isinstance(value, str), "a text"))
INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|min|h)")
ENCODING: Rule = (_encoding, "a text encoding, such as utf-8 or cp1252")
COLUMN: Rule = (lambda value: TEXT[0](value) or _whole(value), "the name of a column, or its position")
COLUMNS: Rule = (
    lambda value: (
        COLUMN[0](value)
        or (isinstance(value, list) and len(value) == 2 and value[0] != value[1] and all(map(COLUMN[0], value)))
    ),
    f"{COLUMN[1]}, or a list of two different ones",
)
SEVERAL: Rule = (
    lambda value: (
        COLUMN[0](value)
        or (isinstance(value, list) and len(value) > 1 and all(map(COLUMN[0], value)) and len({*value}) == len(value))
    ),
    f"{COLUMN[1]}, or a list of at least two different ones, each with 0 and 1 for a label",
)
PRECISIONS = (  # of Lightning, without those that need a package of their own
    "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "bf16", "64",
)  # fmt: skip
PRECISION: Rule = (lambda value: str(value) in (*PRECISIONS, "auto"), f"one of: {', '.join(PRECISIONS)}, auto")
SCHEDULES = (  # of transformers: those that depend on the step alone and need no further setting
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
)  # fmt: skip
EPOCHS: Rule = (lambda value: value == "auto" or COUNT[0](value)), f"{COUNT[1]}, or auto"
FORMAT = or_null(one_of("txt", "csv", "tsv", "jsonl", "json", "parquet", "conll"))
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
BACKENDS = ("torch", "onnx", "onnx_int8")
PREDICTS_IN = ("32-true", "bf16-mixed", "16-mixed")
METHODS = ("shap", "integrated_gradients", "leave_one_out")  # of explanations
DEVICES: Rule = (
    lambda value: value in ("auto", -1) or COUNT[0](value) or (bool(value) and _numbers(value, list, NATURAL)),
    "auto, a whole number of at least 1, -1 for all, or a list of the numbers of some",
)
STRATEGY: Rule = (
    lambda value: value == "auto" or (TEXT[0](value) and value.split("_")[0] in ("ddp", "fsdp", "deepspeed", "single")),
    "auto, or a strategy of Lightning, such as ddp or fsdp",
)
WEIGHTS: Rule = (
    lambda value: value is None or value == "balanced" or _numbers(value, list | dict, NONNEGATIVE),
    "balanced, a list of numbers of at least 0, {name: number}, or null",
)
NAME = (str, int, float, bool)  # YAML reads some names as numbers or booleans
NAMES: Rule = (
    lambda value: isinstance(value, list) and all(isinstance(name, NAME) and name != "" for name in value),
    "a list of names",
)
LABEL_MAP: Rule = (
    lambda value: (
        value is None or (isinstance(value, dict) and all(one is None or NAMES[0]([one]) for one in value.values()))
    ),
    "{name: other name}, where null leaves a label out, or null",
)
BUILT: Rule = (
    lambda value: isinstance(value, dict) and TEXT[0](value.get("_target_")),
    "a group with a _target_, such as {_target_: own.losses.poly}",
)
SEVERAL_BUILT: Rule = (
    lambda value: isinstance(value, dict) and all(map(BUILT[0], value.values())),
    "a group of groups, each with a _target_, such as {name: {_target_: own.metrics.cost}}",
)
EXPECTED = {"figure", "value", "tolerance", "reason", "source", "open"}

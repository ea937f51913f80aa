"""The values that the settings of each script take."""

import codecs
import math
import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

Rule = tuple[Callable[[Any], bool], str]
"""Whether a setting accepts a value, and what it accepts, in words."""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _encoding(value: Any) -> bool:
    try:
        return bool(codecs.lookup(value)._is_text_encoding)  # base64 is a codec, too
    except (LookupError, TypeError, ValueError):
        return False


def _pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and value != "" and bool(re.compile(value))
    except re.error:
        return False


FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
SEED: Rule = (lambda value: _whole(value) and 0 <= value < 2**32, "a whole number from 0 to 2**32 - 1")
COUNT: Rule = (lambda value: _whole(value) and value >= 1, "a whole number of at least 1")
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
SCHEDULES = (  # of transformers: those that depend on the step alone and need no further setting
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
)  # fmt: skip
NAME = (str, int, float, bool)  # YAML reads some names as numbers or booleans
NAMES: Rule = (
    lambda value: isinstance(value, list) and all(isinstance(name, NAME) and name != "" for name in value),
    "a list of names",
)
BUILT: Rule = (lambda value: isinstance(value, dict) and TEXT[0](value.get("_target_")), "a group with a _target_")
SEVERAL_BUILT: Rule = (
    lambda value: isinstance(value, dict) and all(map(BUILT[0], value.values())),
    "a group of groups, each with a _target_",
)
EXPECTED = {"figure", "value", "tolerance", "reason", "source", "open"}

RULES: dict[str, Rule] = {
    "seed": SEED,
    "monitor": (lambda value: TEXT[0](value) and value.startswith("val/"), "val/ and a metric, such as val/f1"),
    "mode": one_of("max", "min"),
    "callbacks": SEVERAL_BUILT,
    "callbacks.early_stopping.patience": COUNT,
    "logger": SEVERAL_BUILT,
    "strict_iob2": FLAG,
    "expected": (
        lambda value: isinstance(value, list) and all(isinstance(one, dict) and set(one) == EXPECTED for one in value),
        f"a list of published figures, each with {', '.join(sorted(EXPECTED))}",
    ),
    "model.name": TEXT,
    "model.hub": one_of("huggingface", "modelscope"),
    "model.dropout": or_null(BELOW_ONE),
    "model.gradient_checkpointing": FLAG,
    "model.random_init": FLAG,
    "model.trust_remote_code": FLAG,
    **{f"data.{key}": OPTIONAL_TEXT for key in ("path", "validation_path", "test_path")},
    "data.text_column": or_null(COLUMNS),
    "data.label_column": or_null(SEVERAL),
    "data.label_names": or_null(NAMES),
    "data.label_separator": OPTIONAL_TEXT,
    "data.separator": TEXT,
    "data.on_bad_row": one_of("error", "skip"),
    "data.quoting": one_of("minimal", "all", "nonnumeric", "none"),
    "data.truncation": one_of("end", "start", "middle"),
    "data.padding": one_of("longest", "max_length"),
    "data.subword_labels": one_of("first", "all"),
    "data.score_subwords": FLAG,
    "data.sampler": one_of("shuffle", "balanced"),
    "data.clean_html": FLAG,
    "data.header": FLAG,
    "data.encoding": ENCODING,
    "data.group_by_length": FLAG,
    "data.validation_size": or_null(SIZE),
    "data.split_seed": SEED,
    "data.folds": (lambda value: _whole(value) and value > 1, "a whole number of at least 2"),
    "data.fold": or_null(COUNT),
    "data.max_length": or_null(COUNT),
    "data.batch_size": COUNT,
    "data.tokens_per_batch": or_null(COUNT),
    "data.eval_batch_size": COUNT,
    "data.num_workers": NATURAL,
    "freeze.n": or_null(NATURAL),
    "freeze.every": COUNT,
    "freeze.pattern": PATTERN,
    "freeze.probe_epochs": COUNT,
    "freeze.probe_lr": or_null(POSITIVE),
    "freeze.rank": COUNT,
    "freeze.alpha": POSITIVE,
    "freeze.dropout": BELOW_ONE,
    "freeze.target_modules": or_null(NAMES),
    "freeze.learning_rate": POSITIVE,
    "freeze.reuse": one_of("auto", "on", "off"),
    "freeze.reuse_dtype": one_of("float32", "bfloat16"),
    "freeze.reuse_gb": POSITIVE,
    "optimizer.class": BUILT,
    "optimizer.lr": POSITIVE,
    "optimizer.head_lr": or_null(POSITIVE),
    "optimizer.layer_decay": or_null(UP_TO_ONE),
    "optimizer.weight_decay": NONNEGATIVE,
    "optimizer.schedule": one_of(*SCHEDULES),
    "optimizer.warmup_ratio": or_null(FRACTION),
    "optimizer.warmup_steps": or_null(NATURAL),
    "loss.label_smoothing": BELOW_ONE,
    "loss.focal_gamma": NONNEGATIVE,
    "data.epochs": COUNT,
    "trainer.precision": (lambda value: str(value) in PRECISIONS, f"one of: {', '.join(PRECISIONS)}"),
    "trainer.max_epochs": COUNT,
    "trainer.max_steps": or_null(COUNT),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": or_null(POSITIVE),
    "trainer.eval_every": or_null(COUNT),
    "trainer.log_every": COUNT,
    "trainer.checkpoint_every": (
        lambda value: value is None or COUNT[0](value) or bool(INTERVAL.fullmatch(str(value).strip())),
        "steps (500), time (30s, 10min, 1h) or null",
    ),
    "trainer.compile": FLAG,
    "trainer.cuda_graphs": FLAG,
    "trainer.deterministic": FLAG,
    "trainer.progress_bar": FLAG,
}

EXPORT_RULES: dict[str, Rule] = {
    "run": TEXT,
    "format": or_null(one_of("onnx", "merged")),
    "quantize": or_null(one_of("int8")),
    "output": OPTIONAL_TEXT,
    "check_rows": COUNT,
    "push_to_hub": OPTIONAL_TEXT,
    "private": FLAG,
}

EXPLORE_RULES: dict[str, Rule] = {
    **{key: rule for key, rule in RULES.items() if key.startswith(("model.", "data."))},
    "text": STRING,
    "features": FLAG,
    "pooling": one_of("cls", "mean"),
    "feature_rows": COUNT,
    "output": OPTIONAL_TEXT,
}

SWEEPER_RULES: dict[str, Rule] = {
    "hydra.sweeper.params": (
        lambda value: isinstance(value, dict | DictConfig),
        "a group of settings, each with its values",
    ),
    "hydra.sweeper.n_trials": COUNT,
    "hydra.sweeper.n_jobs": COUNT,
    "hydra.sweeper.sampler": one_of("tpe", "random", "grid"),
    "hydra.sweeper.seed": SEED,
    "hydra.sweeper.pruner": one_of("median", "none"),
    "hydra.sweeper.startup_trials": NATURAL,
    "hydra.sweeper.warmup_validations": NATURAL,
    "hydra.sweeper.storage": OPTIONAL_TEXT,
}

EXPLAIN_RULES: dict[str, Rule] = {
    "explain": or_null(one_of("shap", "integrated_gradients", "leave_one_out")),
    "explain_evaluations": COUNT,
}

REPORT_RULES: dict[str, Rule] = {
    "runs": TEXT,
    "paper": FLAG,
    "wandb": OPTIONAL_TEXT,
    "split": TEXT,
    "output": PAGE,
}

PREDICT_RULES: dict[str, Rule] = {
    **EXPLAIN_RULES,
    "run": TEXT,
    "text": STRING,
    "input": OPTIONAL_TEXT,
    "output": OPTIONAL_TEXT,
    "explain_page": PAGE,
    "format": or_null(one_of("txt", "csv", "tsv", "jsonl", "json", "parquet", "conll")),
    "text_column": or_null(COLUMNS),
    **{key: or_null(RULES[f"data.{key}"]) for key in ("header", "quoting")},
    "encoding": ENCODING,
    "batch_size": or_null(COUNT),
    "backend": one_of("torch", "onnx", "onnx_int8"),
    "probabilities": FLAG,
    "calibrated": FLAG,
    "min_score": or_null(FRACTION),
}

EVALUATE_RULES: dict[str, Rule] = {
    **EXPLAIN_RULES,
    "run": TEXT,
    "split": TEXT,
    "output": OPTIONAL_TEXT,
    "explain_rows": NATURAL,
    **{f"data.{key}": RULES[f"data.{key}"] for key in ("path", "text_column", "label_column", "label_separator")},
    **{f"data.{key}": or_null(RULES[f"data.{key}"]) for key in ("separator", "header", "quoting")},
    "data.on_bad_row": RULES["data.on_bad_row"],
    "data.encoding": ENCODING,
    "baselines": FLAG,
}

"""Publishes a finished run on the Hugging Face Hub: model, exported model, and a card with the metrics."""

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw import files, runs
from thaw.data.pairs import parted
from thaw.errors import UserError, first_few
from thaw.hub import answers, hub_address
from thaw.labels import LabelSet
from thaw.reporting import summary

PIPELINES = {"sequence": "text-classification", "multi_label": "text-classification", "token": "token-classification"}
SHOWN_LABELS = 50  # names in the card

LONGER = {  # data.truncation -> how a model card puts it
    "start": "are cut at their start",
    "middle": "are cut in the middle",
    "windows": "are read in overlapping windows, whose logits are averaged",
}


def check_hub(name: str) -> None:
    """Refuse early what would make an upload fail.

    Raises:
        UserError: when the name is invalid, there is no token, or the Hub does not answer.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(f"push_to_hub={name} is not a name", "Give name, or owner/name.") from None
    if constants.is_offline_mode():
        raise UserError("push_to_hub: HF_HUB_OFFLINE is set", "Unset it to publish.")
    if not get_token():
        raise UserError("push_to_hub: there is no Hub token", "Log in: hf auth login, or set HF_TOKEN.")
    if not answers(hub_address()):
        raise UserError(
            f"push_to_hub: {hub_address()} does not answer", "Is the network up? HF_ENDPOINT names mirrors."
        )


def push(run: Path, exported: Path | None, name: str, private: bool) -> str:
    """Upload ``model/``, the exported model under ``onnx/``, and the card, in one commit.

    Args:
        exported: the folder that ``format=onnx`` wrote, or None.
        name: of the repository, which is created if it does not exist.

    Returns:
        The address of the repository.

    Raises:
        UserError: when the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    for library in ("httpx", "httpx2"):  # they log every request
        logging.getLogger(library).setLevel(logging.WARNING)
    if not summary.interactive():
        disable_progress_bars()
    sent = {path.relative_to(run / "model").as_posix(): path for path in sorted((run / "model").rglob("*"))}
    if exported:
        sent |= {f"onnx/{path.name}": path for path in sorted(exported.iterdir())}
    operations = [CommitOperationAdd(place, path) for place, path in sent.items() if path.is_file()]
    api = HfApi()
    try:
        repo = api.create_repo(name, private=private, exist_ok=True)
        card = model_card(run, repo.repo_id, exported)
        operations.append(CommitOperationAdd("README.md", card.encode()))
        api.create_commit(repo.repo_id, operations, commit_message="Upload a model fine-tuned with thaw")
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise UserError(
                f"push_to_hub={name}: the Hub refuses the token ({status})",
                "It needs write access, and the owner must be you or one of your organizations.",
            ) from None
        raise UserError(f"push_to_hub={name}: the Hub refuses: {error}", "Try again later.") from error
    except Exception as error:  # the client raises what its HTTP library raises
        raise UserError(f"push_to_hub={name}: the upload failed: {error}", "Try again.") from error
    return str(repo)


def model_card(run: Path, repo_id: str, exported: Path | None = None) -> str:
    """``README.md`` of a repository: metadata for the Hub, metrics, how to use the model, how it was trained.

    It reveals nothing about this machine: encoders and data given by a path are left out.
    """
    from huggingface_hub import EvalResult, ModelCardData

    config, metrics = runs.load_config(run), files.read_json(run / "metrics.json")
    labels = runs.labels_of(run)
    data, pipeline = config.data, PIPELINES[labels.task]
    splits = runs.known_splits(run)
    shown = [name for name in ("accuracy", "f1", "precision_macro", "recall_macro", "precision", "recall")
             if metrics.get(f"{splits[-1]}/{name}") is not None]  # fmt: skip
    source = data.hub or data.name
    card = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        base_model=base_model(config),
        datasets=[data.hub] if data.hub else None,
        metrics=list(dict.fromkeys(name.split("_")[0] for name in shown)),
        tags=["thaw", pipeline, *(["onnx"] if exported else [])],
        model_name=repo_id.split("/")[-1],
        eval_results=[
            EvalResult(
                task_type=pipeline,
                dataset_type=source,
                dataset_name=data.name,
                dataset_config=data.hub_config,
                dataset_split=splits[-1],
                metric_type=name.split("_")[0],
                metric_name=name,
                metric_value=round(metrics[f"{splits[-1]}/{name}"], 4),
            )
            for name in shown
        ],
    )
    parts = [
        f"---\n{card.to_yaml()}\n---",
        f"# {repo_id.split('/')[-1]}",
        introduction(config, labels),
        f"## Figures\n\n{summary.markdown_table(*summary.headline_rows(metrics, splits))}",
        usage(repo_id, labels, pipeline),
        *([onnx_section(files.read_json(exported / "export.json"), repo_id, labels)] if exported else []),
        f"## Training\n\n{summary.markdown_table(['setting', 'value'], training_rows(run, config, metrics))}",
    ]
    return "\n\n".join(parts) + "\n"


def base_model(config: DictConfig) -> str | None:
    """The Hub id of the encoder; None if it was given by a path."""
    name = str(config.model.name)
    return None if Path(name).is_absolute() or name.startswith((".", "~")) else name


def introduction(config: DictConfig, labels: LabelSet) -> str:
    base = f"[{base}](https://huggingface.co/{base})" if (base := base_model(config)) else "An encoder"
    data = config.data.hub or config.data.name
    what = "a pair of texts" if labels.pairs else "a text"
    task = {"sequence": f"one of these labels to {what}", "multi_label": f"any of these labels to {what}",
            "token": "one of these tags to each word"}[labels.task]  # fmt: skip
    names = first_few([f"`{name}`" for name in labels.names], SHOWN_LABELS)
    return f"{base}, fine-tuned with thaw on {data}. It gives {task}: {names}."


def usage(repo_id: str, labels: LabelSet, pipeline: str) -> str:
    options = {"sequence": "", "multi_label": ", top_k=None", "token": ', aggregation_strategy="first"'}[labels.task]
    text = json.dumps(summary.example(labels))
    if labels.pairs:
        text = json.dumps(dict(zip(("text", "text_pair"), parted(summary.example(labels)), strict=True)))
    lines = [
        "## Use", "", "```python", "from transformers import pipeline", "",
        f'predict = pipeline("{pipeline}", model="{repo_id}"{options})', f"predict({text})", "```",
    ]  # fmt: skip
    return "\n".join(lines)


def onnx_section(report: dict[str, Any], repo_id: str, labels: LabelSet) -> str:
    """How the exported model compares with torch, and how to run it."""
    checks, speed = report["checks"], report["speed"]
    rows = []
    for name, one in checks.items():
        same = f"{one['same_labels']:.1%}" if "same_labels" in one else "–"
        figures = [summary.number(value) for value in one["metrics"].values()]
        rates = [summary.number(speed[name][key], 1) for key in ("rows_per_second", "p50_ms", "p95_ms")]
        rows.append([name, summary.number(one["megabytes"], 1), same, *figures, *rates])
    header = ["", "MB", "same labels", *checks["torch"]["metrics"], "rows/s", "ms, median", "ms, 95 %"]
    snippet = [
        "```python", "from huggingface_hub import snapshot_download", "from thaw.inference.onnx import load_onnx", "",
        f'predict = load_onnx(snapshot_download("{repo_id}") + "/onnx")',
        f'predict(["{summary.example(labels)}"])', "```",
    ]  # fmt: skip
    compared = f"On {report['rows']} rows of {report['split']}, with {speed['threads']} CPU threads:"
    return "\n\n".join(["## ONNX", compared, summary.markdown_table(header, rows), "\n".join(snippet)])


def training_rows(run: Path, config: DictConfig, metrics: dict[str, Any]) -> list[list[str]]:
    """The settings and data behind the metrics."""
    versions = files.read_json(run / "environment.json")["packages"]
    counts = files.read_json(run / "data.json")["splits"]
    settings = ("seed", "freeze.name", "data.batch_size", "optimizer.lr", "optimizer.schedule")
    found = {key: OmegaConf.select(config, key) for key in settings}
    rows = [[key, str(value)] for key, value in found.items() if value is not None]
    saved = files.read_json(run / "labels.json")
    return [
        *([name, f"{split['rows']:,} rows"] for name, split in counts.items()),
        ["tokens at most", str(saved["max_length"])],
        *([["longer texts", LONGER[cut]]] if (cut := saved.get("truncation", "end")) in LONGER else []),
        *(
            [["thresholds", ", ".join(f"{value:.3f}" for value in saved["thresholds"])]]
            if "thresholds" in saved
            else []
        ),
        *rows,
        ["steps to the best checkpoint", f"{metrics['best']['step']:,}"],
        ["parameters", f"{metrics['parameters']:,}, of which {metrics['trainable']:,} trained"],
        ["made with", ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers"))],
    ]

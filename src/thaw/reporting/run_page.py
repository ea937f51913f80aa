"""``report.html``: what a run did and how far its scores can be trusted, as one self-contained page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from thaw import files, runs
from thaw.labels import LabelSet
from thaw.metrics.baselines import UNTRAINED
from thaw.metrics.calibration import selective
from thaw.metrics.entities import entity_types
from thaw.metrics.intervals import RESAMPLES, proportion
from thaw.reporting import advice, plots, summary
from thaw.reporting.entity_errors import by_surface, error_matrix
from thaw.reporting.html import write_html
from thaw.reporting.predictions import Rows, groups_of, label_matrix, label_pairs, length_bins, probability_matrix
from thaw.reporting.reading import worth_reading

TILES = {
    "sequence": ("accuracy", "f1", "auc", "mcc", "ece"),
    "multi_label": ("f1_micro", "f1_macro", "map", "subset_accuracy", "ece"),
    "token": ("f1", "precision", "recall", "accuracy", "ece"),
}
DIGITS = 6  # of scores, as in the output of predict.py
RADAR = {
    "sequence": {"accuracy": "accuracy", "F1": "f1_macro", "precision": "precision_macro", "recall": "recall_macro",
                 "AUC": "auc"},
    "multi_label": {"subset accuracy": "subset_accuracy", "F1": "f1_micro", "precision": "precision_micro",
                    "recall": "recall_micro", "mean AP": "map"},
    "token": {"accuracy": "accuracy", "F1": "f1", "precision": "precision", "recall": "recall",
              "macro F1": "f1_macro"},
}  # fmt: skip
NAMES = {"f1": "F1", "f1_micro": "micro F1", "f1_macro": "macro F1", "auc": "AUC", "mcc": "MCC", "map": "mean AP",
         "ece": "calibration error", "subset_accuracy": "subset accuracy"}  # fmt: skip
CONFUSED = 12  # listed pairs of classes


def page_path(run: Path, split: str) -> Path:
    """``report.html`` for the split that the run was tested on, otherwise ``report-<split>.html``."""
    return run / ("report.html" if split == runs.known_splits(run)[-1] else f"report-{split}.html")


def explanations_path(run: Path, split: str) -> Path:
    """The page of explanations that belongs to the page of a split."""
    page = page_path(run, split)
    return page.with_name(page.name.replace("report", "explanations", 1))


def write_page(run: Path, split: str, metrics: Mapping[str, Any], predictions: Rows) -> None:
    """Write the page.

    Args:
        run: the run folder; ``metrics.json`` need not exist yet.
        split: the name of the rows that the page is about.
        metrics: as in ``metrics.json``.
        predictions: a dict for each row, as in ``predictions/``.
    """
    saved, data, environment = (files.read_json(run / f"{name}.json") for name in ("labels", "data", "environment"))
    config, labels = runs.load_config(run), LabelSet.from_dict(saved)
    strict = bool(config.strict_iob2)
    context = {
        **_headline(run, split, config, environment, metrics, predictions, labels),
        **_curves(run, metrics),
        **_classes(split, metrics, predictions, labels, data, strict),
        **_calibration(split, metrics, saved, predictions, labels),
        **_reading(run, predictions, labels, saved.get("thresholds"), strict),
        **_trained(run, metrics),
        **_data(data),
        **_origin(config, environment, metrics),
        "explanations": explained.name if (explained := explanations_path(run, split)).is_file() else "",
    }
    write_html(page_path(run, split), "run.html", context)


def write_own_page(run: Path) -> None:
    """Write the page of a finished run, from its folder alone."""
    split = runs.known_splits(run)[-1]
    predictions = files.read_jsonl(runs.predictions_path(run, split))
    write_page(run, split, files.read_json(run / "metrics.json"), predictions)


def _headline(
    run: Path, split: str, config: DictConfig, environment: Mapping[str, Any], metrics: Mapping[str, Any],
    predictions: Rows, labels: LabelSet,
) -> dict[str, Any]:  # fmt: skip
    pairs, beside = metrics["intervals"], metrics["baselines"].get(split, {})
    scores = {name: metrics.get(f"{split}/{name}") for name in summary.headline_names(metrics, [split])}
    others = [other for other in ("validation", "test") if other != split and f"{other}/loss" in metrics]
    groups = groups_of(predictions)
    tested = "" if split in ("test", "validation") else f", on {split}"
    return {
        "title": f"{config.data.name}: {Path(config.model.name).name}, freeze={config.freeze.name}{tested}",
        "subtitle": f"{runs.display(run)} · started {environment['started'].replace('T', ' ')}",
        "command": environment["command"],
        "split": split,
        "rows": len(predictions),
        "unit": "sentences" if labels.task == "token" else "rows",
        "token": labels.task == "token",
        "resamples": RESAMPLES,
        "grouped": groups is not None,
        "drawn": len(predictions) if groups is None else int(groups.max()) + 1,
        "tiles": [
            {"name": NAMES.get(name, name), "value": value, "interval": pairs.get(f"{split}/{name}")}
            for name in TILES[labels.task]
            if (value := scores.get(name)) is not None and np.isfinite(value)
        ],
        "figures": [
            {
                "name": name,
                "title": title,
                "value": scores[name],
                "interval": pairs.get(f"{split}/{name}"),
                "others": [metrics.get(f"{other}/{name}") for other in others],
                "baselines": [figures.get(name) for figures in beside.values()],
            }
            for name, title in summary.titled(list(scores)).items()
        ],
        "other_splits": others,
        "baselines": list(beside),
        "baseline_pictures": _beside_baselines(scores, beside, labels, pairs.get(f"{split}/f1")) if beside else [],
    }


def _beside_baselines(
    scores: Mapping[str, Any], beside: Mapping[str, Any], labels: LabelSet, interval: Sequence[float] | None
) -> list[str]:
    """F1 beside that of the baselines, and what training changed."""
    bars = {**{name: figures["f1"] for name, figures in beside.items()}, "this run": scores["f1"]}
    pairs: dict[str, Any] = {
        name: (beside[UNTRAINED].get(key), scores.get(key)) for name, key in RADAR[labels.task].items()
    }
    corners = {name: pair for name, pair in pairs.items() if None not in pair and np.isfinite(pair).all()}
    return [plots.baseline_bars(bars, interval), *([plots.radar(corners)] if len(corners) > 2 else [])]


def _curves(run: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    history, best = runs.history(run), metrics["best"]
    pictures = plots.training_curves(history, best["monitor"], best["step"]) if history else []
    return {"best": best, "curve_pictures": pictures}


def _classes(
    split: str, metrics: Mapping[str, Any], predictions: Rows, labels: LabelSet, data: Mapping[str, Any], strict: bool
) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix

    gold = [row["label"] for row in predictions]
    ids = list(map(labels.ids_of, gold))
    counts = summary.occurrences(ids, labels)
    confused: list[list[str]] = []
    confusions: list[str] = []
    counted = "words" if labels.task == "token" else "rows"
    rankings: list[str] = []
    if labels.entities:
        confusions = [plots.entity_matrix(*error_matrix(predictions, entity_types(labels), strict))]
    elif labels.task != "multi_label":
        pairs = label_pairs(predictions, labels)
        table = np.zeros((len(labels), len(labels)), dtype=np.int64)
        if pairs:  # of words, none may have a token
            table = confusion_matrix(*zip(*pairs, strict=True), labels=labels.names)
        confusions = plots.confusion(table, labels.names, counted)
        confused = _most_confused(table, labels.names) if len(labels) > 2 else []
    if labels.task != "token":
        truth, scores = label_matrix(predictions, labels), probability_matrix(predictions, labels)
        alone = labels.task == "sequence" and len(labels) == 2
        chosen = [1] if alone else list(range(len(labels)))
        rankings = plots.ranking_curves(truth[:, chosen], scores[:, chosen], [labels.names[i] for i in chosen])
    return {
        "entities": labels.entities,
        "by_label": [
            {
                "name": name,
                **{kind: files.finite(metrics[f"{split}/{kind}/{name}"]) for kind in ("f1", "precision", "recall")},
                "occurs": counts[name],
            }
            for name in counts
        ],
        "confusion_pictures": confusions,
        "counted": counted,
        "confused": confused,
        "advice": advice.of_run(metrics, split, counts, data),
        "ranking_pictures": rankings,
    }


def _most_confused(table: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    off = table * (1 - np.eye(len(table), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:CONFUSED]
    pairs = [(int(i) // len(table), int(i) % len(table)) for i in order]
    return [[names[i], names[j], f"{off[i, j]:,}", f"{off[i, j] / table[i].sum():.1%}"] for i, j in pairs if off[i, j]]


def _calibration(
    split: str, metrics: Mapping[str, Any], saved: Mapping[str, Any], predictions: Rows, labels: LabelSet
) -> dict[str, Any]:
    bins = metrics["calibration"][split]
    across = "share true" if labels.task == "multi_label" else "accuracy"
    ece, mended = metrics.get(f"{split}/ece"), metrics.get(f"{split}/ece_calibrated")
    pictures = [plots.reliability_diagram(bins["bins"], "As trained", ece, across)]
    if "calibrated" in bins:
        pictures.append(plots.reliability_diagram(bins["calibrated"], "With temperature", mended, across))
    return {
        "ece": ece,
        "ece_calibrated": mended,
        "made_worse": advice.made_worse(metrics, split),
        "temperature": saved.get("temperature"),
        "calibration_pictures": pictures,
        "selective": _selective(predictions, labels) if labels.task == "sequence" else [],
    }


def _selective(predictions: Rows, labels: LabelSet) -> list[list[str]]:
    correct = np.array([row["label"] == row["predicted"] for row in predictions])
    grouped = groups_of(predictions) is not None  # then rows are no independent ones, as the interval takes them to be
    table = []
    for part in selective(probability_matrix(predictions, labels).max(-1), correct):
        accuracy, *pair = proportion(part["right"], part["rows"])
        share = part["rows"] / len(predictions)
        score = np.floor(part["score"] * 10**DIGITS) / 10**DIGITS  # rounded up, it would leave rows out
        interval = "" if grouped else summary.interval(pair)
        table.append([f"{share:.0%}", f"{score:.{DIGITS}f}", summary.number(accuracy, 3), interval])
    return table


def _reading(
    run: Path, predictions: Rows, labels: LabelSet, thresholds: Sequence[float] | None, strict: bool
) -> dict[str, Any]:
    surfaces = []
    if labels.entities and (run / "surfaces.json").is_file():
        for row in by_surface(predictions, set(files.read_json(run / "surfaces.json")), strict):
            recall, *pair = proportion(row["found"], row["true"])
            surfaces.append([
                row["name"], f"{row['true']:,}", f"{row['found']:,}", summary.number(recall, 3),
                summary.interval(pair if row["true"] else None), f"{row['predicted']:,}",
                summary.number(proportion(row["found"], row["predicted"])[0], 3),
            ])  # fmt: skip
    across = {"sequence": "accuracy", "multi_label": "texts with exactly the right labels"}.get(
        labels.task, "entities found" if labels.entities else "words right"
    )
    bins = length_bins(predictions, labels, strict)
    return {
        "reading": worth_reading(predictions, labels, thresholds),
        "length_pictures": [plots.score_by_length(bins, across)] if len(bins) > 1 else [],
        "surfaces": surfaces,
    }


def _trained(run: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    table = files.read_json(run / "parameters.json")
    header, rows = summary.parameter_rows(table)
    size = sum(path.stat().st_size for path in (run / "model").glob("*.safetensors"))
    share = metrics["trainable"] / metrics["parameters"]
    lines = [
        f"{metrics['trainable']:,} of {metrics['parameters']:,} parameters train ({share:.2%}).",
        f"The weights take {size / 1e6:,.1f} MB.",
        f"Training ran at {metrics['rows_per_second']:,.0f} rows a second, validations included.",
    ]
    return {
        "trained": " ".join(lines),
        "block_pictures": [plots.blocks(table)],
        "block_header": header,
        "block_rows": rows,
    }


def _data(data: dict[str, Any]) -> dict[str, Any]:
    (_, header, rows), (_, label_header, label_rows) = summary.data_tables(data)
    prints = [split["fingerprint"] for split in data["splits"].values()]
    return {
        "data_header": header,
        "data_rows": [*rows, ["fingerprint", *prints]],
        "label_header": label_header,
        "label_rows": label_rows,
        "notes": advice.notes(data),
    }


def _origin(config: DictConfig, environment: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    names = {"started": "started", "commit": "commit", "python": "Python", "platform": "platform",
             "processor": "processor", "threads": "threads"}  # fmt: skip
    shown = [(name, environment[key]) for key, name in names.items() if environment.get(key)]
    gpus = ", ".join(environment["gpus"]) or "none"
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return {
        "changed": environment.get("changed", []),
        "times": [[name, f"{seconds:.1f}"] for name, seconds in metrics["seconds"].items()],
        "environment": [*shown, ("GPUs", gpus), ("packages", packages)],
        "config": OmegaConf.to_yaml(config),
    }

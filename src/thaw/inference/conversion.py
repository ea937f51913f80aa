"""Writes the folder of an exported model, and keeps it only if its scores equal torch's."""

import shutil
from pathlib import Path
from typing import Any

from thaw import files, runs
from thaw.errors import UserError
from thaw.inference.checks import Comparison, measure, mixed_batches
from thaw.inference.graphs import OPSET, quantize_graph, write_graph
from thaw.inference.network import load_network
from thaw.inference.onnx import FILES, load_onnx
from thaw.inference.predictor import Predictor
from thaw.models.speed import compute_first_token
from thaw.reporting.summary import table

TOLERANCE = 1e-4  # between the scores of torch and of the exported float32 model
LABELS_LOST = 0.01  # share of rows whose label integer embeddings may change, beyond what integer matrices change


def write_onnx(run: Path, quantize: str | None, check_rows: int, place: str) -> None:
    """Write the folder of an exported model: models, tokenizer, labels, and ``export.json`` with the checks.

    Args:
        quantize: ``int8`` or None.
        check_rows: how many rows of the run's last split to compare on.
        place: the folder, which must not exist yet.
    """
    folder = Path(place)
    folder.mkdir(parents=True)
    network, tokenizer = load_network(run, attn_implementation="eager")
    compute_first_token(network.eval())
    write_graph(network, folder / FILES[None])
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(folder / "tokenizer.json"))
    saved = files.read_json(run / "labels.json")
    reference = Predictor.from_run(run)
    files.write_json(folder / "labels.json", {**saved, "pad_token_id": tokenizer.pad_token_id})
    split = runs.known_splits(run)[-1]
    texts, gold, _, _ = runs.saved_rows(run, split, reference.labels)
    texts, gold = texts[:check_rows], gold[:check_rows]
    encoded = reference.encode(texts, gold)
    strict = bool(runs.load_config(run).strict_iob2)
    compared = Comparison(reference, encoded, strict)
    exported = load_onnx(folder)
    # Rows of mixed lengths, to detect a mask that has no effect.
    checks = {"torch": compared.own(), "onnx": compared.of(exported, mixed_batches(encoded))}
    if not checks["onnx"]["score_difference"] <= TOLERANCE:  # also if it is NaN
        raise UserError(
            f"{network.config.model_type}: the scores of the exported model differ from torch's by up to "
            f"{checks['onnx']['score_difference']:.1g}",
            "It was not kept; predict.py runs the model with torch.",
        )
    predictors = {"torch": reference, "onnx": exported}
    result: dict[str, Any] = {"format": "onnx", "opset": OPSET, "split": split, "rows": len(texts), "checks": checks}
    if quantize:
        result["int8"] = quantize_best(folder, compared)
        checks["onnx_int8"] = result["int8"]["candidates"][result["int8"]["chosen"]]
        predictors["onnx_int8"] = load_onnx(folder, "int8")
    result["speed"] = measure(predictors, [" ".join(text) if isinstance(text, list) else text for text in texts])
    checks["torch"]["megabytes"] = megabytes(run / "model", "*.safetensors")
    checks["onnx"]["megabytes"] = megabytes(folder, f"{FILES[None]}*")  # large weights are stored beside the graph
    files.write_json(folder / "export.json", result)


def megabytes(folder: Path, pattern: str) -> float:
    return sum(file.stat().st_size for file in folder.glob(pattern)) / 1e6


def quantize_best(folder: Path, compared: Comparison) -> dict[str, Any]:
    """Write ``model_int8.onnx``: integer matrices, and also integer embeddings if the labels hardly change.

    Returns:
        ``chosen``, and the checks of both variants under ``candidates``.
    """
    candidates: dict[str, Any] = {}
    target = folder / FILES["int8"]
    for name, kinds in (("matrices", ["MatMul"]), ("matrices and embeddings", ["MatMul", "Gather"])):
        quantize_graph(folder / FILES[None], folder / f"{name}.onnx", kinds)
        shutil.copyfile(folder / f"{name}.onnx", target)
        candidates[name] = compared.of(load_onnx(folder, "int8"))
        candidates[name]["megabytes"] = megabytes(folder, target.name)
    plain, smaller = candidates
    lost = candidates[plain]["same_labels"] - candidates[smaller]["same_labels"]
    chosen = smaller if lost <= LABELS_LOST else plain
    (folder / f"{chosen}.onnx").replace(target)
    for name in candidates:
        (folder / f"{name}.onnx").unlink(missing_ok=True)
    return {"chosen": chosen, "candidates": candidates}


def show(result: dict[str, Any]) -> None:
    """Print the checks as a table with one column per backend."""
    checks, speed = result["checks"], result["speed"]

    def row(title: str, values: dict[str, Any], key: str, form: str) -> list[str]:
        return [title, *(f"{values[name][key]:{form}}" if key in values[name] else "" for name in checks)]

    metrics = {name: one["metrics"] for name, one in checks.items()}
    rows = [
        row("size, MB", checks, "megabytes", ".1f"),
        *(row(name, metrics, name, ".4f") for name in metrics["torch"]),
        row("same labels", checks, "same_labels", ".1%"),
        row("largest score difference", checks, "score_difference", ".1g"),
        row("rows a second", speed, "rows_per_second", ".1f"),
        row("one text, ms, median", speed, "p50_ms", ".1f"),
        row("one text, ms, 95 %", speed, "p95_ms", ".1f"),
    ]
    print(table(f"{result['rows']} rows of {result['split']}, {speed['threads']} threads", ["", *checks], rows))

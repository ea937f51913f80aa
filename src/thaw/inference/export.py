"""What ``export.py`` does: convert or publish a run. Whatever can be refused is refused before torch is imported."""

import shutil
import sys
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from thaw import files, runs
from thaw.errors import UserError, require
from thaw.settings import plain

SAME = 0.9  # share of the labels that int8 should leave unchanged


def export(config: DictConfig) -> None:
    """Export and publish what the config of ``export.py`` names.

    Raises:
        UserError: when nothing is asked for, the run is not finished, a package is missing, the Hub does not answer, or
            the exported model gives other scores.
    """
    settings = plain(config)
    form, target = settings["format"], settings["push_to_hub"]
    if not form and not target:
        raise UserError("export.py needs format= or push_to_hub=", "Give format=onnx, for example.")
    if settings["quantize"] and form != "onnx":
        raise UserError(f"quantize={settings['quantize']} is for format=onnx", "Give format=onnx as well.")
    if settings["output"] and not form:
        raise UserError(f"output={settings['output']} is for a format", "Give format=onnx or merged as well.")
    run = runs.open_run(settings["run"], needs="metrics.json")
    if target:
        from thaw.inference import publishing

        publishing.check_hub(target)  # before minutes of work, not after
    folder = Path(settings["output"] or run / (form or "")).expanduser().absolute()
    if form == "merged":
        copy_merged(run, folder)
    elif form:
        convert(run, folder, settings["quantize"], settings["check_rows"])
    if target:
        print(f"Published  {publishing.push(run, folder if form == 'onnx' else None, target, settings['private'])}")


def convert(run: Path, folder: Path, quantize: str | None, check_rows: int) -> None:
    """Write the ONNX model of a run, and show how it compares with torch and how to use it."""
    check_free(folder, run)
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, "format=onnx", "onnx")
    from thaw.inference.conversion import show, write_onnx
    from thaw.reporting.summary import example

    files.replace_folder(folder, partial(write_onnx, run, quantize, check_rows))
    result = files.read_json(folder / "export.json")
    show(result)
    print(f"\nExported   {runs.display(folder)}")
    same = result["checks"]["onnx_int8"]["same_labels"] if quantize else 0.0
    if quantize and same < SAME:
        print(f"warning: int8 keeps only {same:.0%} of the labels", file=sys.stderr)
    place, backend = runs.shell_path(run if folder == run / "onnx" else folder), "onnx_int8" if same >= SAME else "onnx"
    text = example(runs.labels_of(run))
    print(f'Predict    python predict.py run={place} backend={backend} text="{text}"')


def check_free(folder: Path, run: Path) -> None:
    """Refuse to replace a folder that is not an earlier export."""
    ours = folder in (run / "onnx", run / "merged") or (folder / "export.json").is_file()
    taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if run.is_relative_to(folder) or (taken and not ours):
        raise UserError(f"output={folder}: it holds something else already", "Give a folder that does not exist yet.")


def copy_merged(run: Path, folder: Path) -> None:
    """Copy ``model/``, into which training has merged the adapters.

    Raises:
        UserError: when the run has no adapters.
    """
    if not (run / "adapter").is_dir():
        raise UserError(
            f"format=merged: freeze={runs.load_config(run).freeze.name} has no adapters to merge",
            f"{runs.display(run / 'model')} is the plain transformers folder already.",
        )
    check_free(folder, run)
    files.replace_folder(folder, partial(shutil.copytree, run / "model"))
    print(f"\nExported   {runs.display(folder)}")

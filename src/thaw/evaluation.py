"""What ``evaluate.py`` does: a finished run is scored again from its folder alone, or on new data."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from thaw import files, runs
from thaw.data.module import TextDataModule
from thaw.data.splits import rows_fingerprint, shared, text_keys
from thaw.errors import UserError, counted
from thaw.hub import locate_encoder
from thaw.inference.attribution import check_method
from thaw.inference.explanation import explain_rows
from thaw.inference.predictor import Predictor
from thaw.inference.voting import check_voters
from thaw.joint_evaluation import evaluate_together
from thaw.labels import LabelSet
from thaw.metrics.outputs import Outputs
from thaw.models.encoder import load_encoder
from thaw.models.speed import accelerate
from thaw.new_rows import Labelled, new_rows
from thaw.reporting import advice, summary
from thaw.reporting.run_page import explanations_path, page_path, write_page
from thaw.scoring import joined_metrics, predict_baselines, predict_rows, score_baselines, score_rows, trained_on
from thaw.settings import plain

log = logging.getLogger(__name__)


def evaluate_run(settings: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
    """Score a finished run, and write its predictions and its page.

    Args:
        settings: the config of ``evaluate.py``: ``run``, ``split``, ``data`` (overrides for a new file), ``output``,
            ``baselines`` and those of the explanations.

    Returns:
        (name under which predictions and page are kept, number of rows, metrics): figures with the name as prefix,
        ``intervals``, ``calibration``, ``baselines``, ``notes`` on the rows, and ``advice``: what the page says
        of the metrics besides the notes.

    Raises:
        UserError: when the run is not finished, the split unknown, or the new data does not fit its labels.
    """
    if settings.get("explain"):
        check_method(settings["explain"])
    run = runs.open_run(settings["run"], needs="metrics.json")
    predictor = Predictor.from_run(run)
    config = plain(runs.load_config(run))
    runs.spare_data(run, settings["output"])
    if settings["data"].get("path"):
        rows = new_rows(run, config["data"], settings["data"], predictor, settings["split"])
    elif settings["split"] == "train":
        data = training_data(run)
        train = data.rows["train"][:]
        note = "These are the rows that the run was trained on."
        rows = Labelled("train", train["text"], train["label"], data.places("train"), data.groups("train"), [note])
    else:
        rows = Labelled(settings["split"], *runs.saved_rows(run, settings["split"], predictor.labels))
    outputs = predict_rows(predictor, rows.texts, rows.gold, rows.name)
    result = score_rows(predictor, outputs, rows.texts, rows.places, config, rows.groups)
    # Written at once: from now on the name belongs to these rows.
    files.write_jsonl(runs.predictions_path(run, rows.name), result.predictions)
    if settings["output"]:
        files.write_jsonl(Path(settings["output"]).expanduser(), result.predictions)
    if settings.get("explain"):
        explain_rows(run, rows.name, predictor, result.predictions, settings)
    metrics = files.read_json(run / "metrics.json")
    own = joined_metrics({rows.name: result})
    wanted, known = settings.get("baselines", True), metrics["baselines"].get(rows.name)
    tested, notes = known is not None, rows.notes  # whether these are the rows that the run was tested on
    if tested and (known or not wanted):
        baselines = known if wanted else {}
    elif rows.name == "train":  # which baselines would know by heart
        baselines = {}
    else:
        beside, seen = against_training(run, config, predictor, rows, wanted)
        baselines, notes = score_baselines(beside, predictor, outputs, config, rows.groups), [*rows.notes, *seen]
    own |= {"baselines": {rows.name: baselines}, "notes": metrics.get("notes", []) if tested else notes}
    if f"{rows.name}/loss" not in metrics:
        files.write_json(runs.metrics_path(run, rows.name), {"rows": len(rows.texts), **own})
    write_page(run, rows.name, {**metrics, **own}, result.predictions)
    counts = summary.occurrences(rows.gold, predictor.labels)
    said = advice.of_run({**metrics, **own}, rows.name, counts, files.read_json(run / "data.json"))
    return rows.name, len(rows.texts), {**own, "advice": said[len(own["notes"]) :]}


def against_training(
    run: Path, config: dict[str, Any], predictor: Predictor, rows: Labelled, with_baselines: bool
) -> tuple[dict[str, Outputs], list[str]]:
    """Baselines' outputs for rows other than the run's test, and a note if the run was trained on some of these.

    Both need the training data; where that, or the encoder, is out of reach, a warning says what is left out.
    """
    lacking, notes = "Not compared with the training data", list[str]()
    try:
        train = training_data(run).rows["train"][:]
        notes = trained_on(
            shared(text_keys(map(bare, rows.texts)), text_keys(map(bare, train["text"]))), len(rows.texts)
        )
        if with_baselines:
            lacking = "No baselines"
            own = {"text": rows.texts, "label": rows.gold}
            return other_baselines(config, predictor, rows.name, train, own), notes
    except (UserError, OSError) as reason:
        log.warning("%s: %s", lacking, reason)
    return {}, notes


def training_data(run: Path) -> TextDataModule:
    """The data of a run, read again but not encoded, with the training rows it had.

    Raises:
        UserError: when it cannot be read, or has changed.
    """
    config = plain(runs.load_config(run))
    data = TextDataModule(config["data"], lambda _: None, 0, config["seed"])
    data.read()
    train = data.rows["train"][:]
    known = files.read_json(run / "data.json")["splits"]["train"]["fingerprint"]
    if rows_fingerprint(train["text"], train["label"]) != known:
        raise UserError(
            "the training data has changed since the run", "Restore it. Earlier versions also divided files otherwise."
        )
    return data


def bare(text: str | Sequence[str]) -> str:
    """A text, or a list of words, without blanks: the same text may be divided into words in several ways."""
    return "".join("".join(text).split())


def inherited(model: str, texts: Sequence[Any]) -> list[str]:
    """Notes on rows that an encoder has seen already, in the training of the runs that it comes from.

    Args:
        model: the setting ``model.name``; of a run that goes on from another, its folder ``model``.
        texts: of the rows to score.
    """
    notes, folder, keys = [], Path(model).expanduser(), text_keys(map(bare, texts))
    while folder.name == "model" and all((folder.parent / name).is_file() for name in ("metrics.json", "config.yaml")):
        run, folder = folder.parent, Path()
        try:
            folder = Path(str(runs.load_config(run).model.name)).expanduser()
            seen = shared(keys, text_keys(map(bare, training_data(run).rows["train"]["text"])))
            if seen:
                notes.append(f"The encoder comes from {runs.display(run)}, which was trained on {seen:,} of these "
                             f"{counted(len(texts), 'text')}.")  # fmt: skip
        except Exception as reason:  # the run may be of another version, or of another program
            notes.append(f"Whether {runs.display(run)}, from which the encoder comes, was trained on some of these "
                         f"{counted(len(texts), 'text')} is not known: {reason}")  # fmt: skip
    return notes


def other_baselines(
    config: dict[str, Any], predictor: Predictor, name: str, train: Mapping[str, Any], rows: Mapping[str, Any]
) -> dict[str, Outputs]:
    """The outputs of baselines for rows other than those of the run's test.

    Raises:
        UserError: when the encoder cannot be loaded.
    """
    import torch

    torch.manual_seed(config["seed"])  # the same head as before training
    network = load_encoder(locate_encoder(config["model"]), predictor.labels, config["model"])
    accelerate(network)
    before = Predictor.from_network(
        network,
        predictor.tokenizer,
        predictor.labels,
        max_length=predictor.max_length,
        truncation=predictor.truncation,
        batch_size=predictor.batch_size,
    )
    return predict_baselines(before, train, rows, name)


def check_output(path: Path, run: str, data: str | None) -> None:
    """Refuse, before any work, to write over the data, into the run, or where nothing can be written."""
    files.check_not_over(path, run, "the run folder, which gets its own")
    if data:
        files.check_not_over(path, data, "data.path")
    if path.suffix != ".jsonl" or path.is_dir():
        raise UserError(f"output={path}: predictions are JSON lines", "Give the name of a file that ends in .jsonl.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"output={path}: cannot be written: {error.strerror}", "Choose another place.") from None


def optimistic(split: str) -> list[str]:
    """A note on the metrics of validation."""
    return ["The validation rows picked the checkpoint, so the metrics are optimistic."] * (split == "validation")


def evaluate_vote(folders: Sequence[str], settings: dict[str, Any]) -> None:
    """Evaluate the vote of several runs; each scores new data for itself first.

    Raises:
        UserError: when the runs cannot vote on these rows, or explanations are asked for.
    """
    if settings["explain"]:
        check_method(settings["explain"], runs=len(folders))
    if settings["data"].get("path"):
        # Before anything is written: some cannot vote together.
        saved = [files.read_json(runs.open_run(folder, needs="metrics.json") / "labels.json") for folder in folders]
        check_voters(folders, [*map(LabelSet.from_dict, saved)], [bool(own.get("clean_html")) for own in saved])
        each = {**settings, "output": None}
        names, _, alone = zip(*(evaluate_run({**each, "run": folder}) for folder in folders), strict=True)
        if len(set(names)) > 1:
            raise UserError(
                f"data.path: the runs keep these rows as {' and '.join(sorted(set(names)))}, since some have others of "
                "that name",
                "Rename the file.",
            )
        for folder, metrics in zip(folders, alone, strict=True):
            for note in metrics["notes"]:
                log.warning("%s: %s", folder, note)
        settings = {**settings, "split": names[0]}
    for line in optimistic(settings["split"]):
        print(line)
    rows, metrics = evaluate_together(folders, settings)
    title = f"Metrics of {len(folders)} runs that vote, {counted(rows, 'row')}"
    print(summary.table(title, *summary.headline_rows(metrics, [settings["split"]])))
    if settings["output"]:
        print(f"\nPredictions   {runs.display(Path(settings['output']).expanduser())}")


def evaluate(config: DictConfig) -> None:
    """Evaluate and show what ``evaluate.py`` is asked for."""
    settings = plain(config)
    folders = runs.several(runs.listed(settings["run"]))
    for folder in folders if settings["output"] else ():
        check_output(Path(settings["output"]).expanduser(), folder, settings["data"].get("path"))
    if len(folders) > 1:
        evaluate_vote(folders, settings)
        return
    settings["run"] = folders[0]
    name, rows, metrics = evaluate_run(settings)
    for line in [*metrics["notes"], *optimistic(name)]:
        print(line)
    print(summary.table(f"Metrics, {counted(rows, 'row')}", *summary.headline_rows(metrics, [name])))
    for line in metrics["advice"]:
        print(f"\n{line}")
    run = runs.open_run(settings["run"])
    written = Path(settings["output"] or runs.predictions_path(run, name)).expanduser()
    print(f"\nReport        {runs.display(page_path(run, name))}")
    print(f"Metrics       {runs.display(runs.metrics_path(run, name))}")
    print(f"Predictions   {runs.display(written)}")
    if settings["explain"]:
        print(f"Explanations  {runs.display(explanations_path(run, name))}")

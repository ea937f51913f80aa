"""Labelled rows to evaluate a finished run on: those of another file, read as the run read its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thaw import files, runs
from thaw.data.module import load_labelled
from thaw.data.splits import SPLITS
from thaw.errors import NoGroups
from thaw.inference.predictor import Predictor


@dataclass(frozen=True)
class Labelled:
    """Labelled rows to evaluate a run on.

    Args:
        name: under which their predictions and page are kept in the run folder.
        texts: strings, or lists of words.
        gold: an id, a list of ids, or an id for each word.
        places: where the texts stand, for readers of the page.
        groups: that of each text, with ``data.group_column``; else empty.
        notes: what has to be said about the rows.
    """

    name: str
    texts: list[Any]
    gold: list[Any]
    places: list[str]
    groups: list[str | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def new_rows(run: Path, data: dict[str, Any], new: dict[str, Any], predictor: Predictor, split: str) -> Labelled:
    """Rows of a file or folder other than the run's own.

    Args:
        data: the ``data`` group of the run.
        new: what differs from it; None takes the run's.
        predictor: of the run, which splits texts with marked entities into words.
        split: of a folder that holds several.
    """
    given = {key: value for key, value in new.items() if value is not None}
    labels = predictor.labels
    # What predict.py has labelled has its label under another name.
    lenient = not given.keys() & {"text_column", "label_column"}
    anew = {"task": labels.task, "format": None, "train_size": None, "lenient": lenient}
    anew |= {"validation_path": None, "test_path": None, "corrections": None}
    read, notes = {**data, **anew, **given}, list[str]()
    try:
        texts, gold, places, skipped, groups = load_labelled(read, labels, split, predictor.joined_by)
    except NoGroups:
        if "group_column" in given:
            raise
        read["group_column"] = None
        texts, gold, places, skipped, groups = load_labelled(read, labels, split, predictor.joined_by)
        notes = [f"These rows lack the column {data['group_column']!r}, by which the run's are grouped: the intervals "
                 "are of single rows, too narrow if some belong together."]  # fmt: skip
    path = Path(str(given["path"])).expanduser()
    name = files.plain_name(path).removesuffix(".gz").rsplit(".", 1)[0] + (f"_{split}" if path.is_dir() else "")
    name = unused_name(run, f"new_{name}" if name in SPLITS else name, texts)
    listed = run / "predictions" / f"{name}.skipped.json"
    listed.unlink(missing_ok=True)  # of an earlier evaluation
    if skipped:
        files.write_json(listed, skipped)
        total = len(skipped) + len(texts)
        notes = [f"Rows skipped: {len(skipped):,} of {total:,}, such as {skipped[0]}.", *notes]
    return Labelled(name, texts, gold, places, groups, notes)


def unused_name(run: Path, name: str, texts: Sequence[Any]) -> str:
    """The name itself, or the first with a number that does not stand for the predictions of other texts."""
    unused, number = name, 1
    while (path := runs.predictions_path(run, unused)).is_file():
        if [row["words"] if "words" in row else row["text"] for row in files.read_jsonl(path)] == list(texts):
            break
        number += 1
        unused = f"{name}_{number}"
    return unused

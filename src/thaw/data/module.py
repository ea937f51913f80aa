"""TextDataModule: from the ``data`` group of the config to labels, encoded splits and batches."""

import logging
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from thaw.data import sources, splits
from thaw.data.batching import Batches, evaluation_batches, make_loader
from thaw.data.checking import label_map
from thaw.data.corrections import alike, check_new_labels, short_place
from thaw.data.encoding import Encoded, cached_split, encode_split, encoding_key
from thaw.data.label_ids import FORMS, derive_labels, detect_task, form_of, with_ids
from thaw.data.rows import Values
from thaw.data.summary import label_counts, summarise
from thaw.errors import UserError
from thaw.labels import IGNORED, LabelSet, Task, require_classes
from thaw.settings import data_files

log = logging.getLogger(__name__)


class TextDataModule(pl.LightningDataModule):
    """The data of a run.

    Args:
        data: the ``data`` group of the config, as a plain dict.
        tokenizer: of the encoder; called with the task, since token tasks want word boundaries kept.
        max_length: tokens kept of each text, or of words in each window, at most.
        seed: of the order of the training batches; splits and subsets have fixed seeds of their own.

    Attributes (after `prepare`):
        labels: the `LabelSet`, the only thing that the model learns from the data.
        rows: split -> ``datasets.Dataset`` with ``text`` and ``label``.
        encoded: split -> `Encoded`.
        pool: with ``data.fold``, all rows that are divided into folds, encoded, if the runs use them all; else None.
        summary: what the user is shown at the start of a run, and ``data.json``.
    """

    def __init__(self, data: dict[str, Any], tokenizer: Callable[[Task], Any], max_length: int, seed: int) -> None:
        super().__init__()
        self.data, self.max_length, self.seed = data, max_length, seed
        self.truncation = data["truncation"]
        self.tokenizer_for = tokenizer
        self.start = (0, 0)
        self.folded: Any = None
        self.pool: Encoded | None = None

    def prepare(self) -> None:
        """Read, check, split and encode everything; every complaint about the data is raised here."""
        self.read()
        self.tokenizer = self.tokenizer_for(self.labels.task)
        # Some are saved with settings of their own, which the first call resets; the cache's key would change with it.
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        scored = self.labels.task == "token" and self.data["score_subwords"]
        plain = {name: self._encode(rows, score_subwords=False) for name, rows in self.rows.items()}
        # The folds hold the same rows among them: what frozen layers make of these is computed for all runs at once.
        self.pool = self._encode(self.folded, score_subwords=False) if self.folded else None
        # Of words, whatever is scored.
        self.summary = summarise(self.rows, plain, self.labels, self.source, self.truncation, self.data.get("fold"))
        self.encoded = {name: self._encode(rows, True) for name, rows in self.rows.items()} if scored else plain

    def read(self) -> None:
        """Only `labels` and `rows`, for which no tokenizer is needed."""
        source = self.source = sources.load(self.data)
        if self.data.get("fold"):
            self._leave_alone("validation", "test")
        task = detect_task(source, self.data)
        first = "all" if "all" in source.splits else "train"
        names = label_map(self.data)
        if absent := source.corrections.keys() - source.corrected.keys():
            own, place = source.corrections[min(absent)], min(absent)
            problem = f"has another text at {place} now" if place in source.others else f"has no row at {place}"
            raise UserError(f"{own.where}: the data {problem}", "Correct the place, or leave it out.")
        given = self.data.get("label_names") or source.names or []
        if names:
            given = list(dict.fromkeys(new for name in given if (new := names.get(str(name), name)) is not None))
        self.labels = derive_labels(source.splits[first], task, given or None)
        others = {name for name in self.labels.names if name not in names.values()}
        for label in sorted(names.keys() - source.renamed):  # of a file that has been mended, or of another month
            problem = f"data.label_map: no row has the label {label!r}"
            if meant := alike(label, others):
                raise UserError(problem, f"Did you mean {meant!r}?")
            log.warning("note: %s", problem)
        if source.corrections:
            counts = Counter(label for rows in source.splits.values() for label in rows["label"])
            known = {str(name) for name in self.data.get("label_names") or ()}
            check_new_labels(source.corrections, names, counts, known)
        if self.data.get("test_size") is not None and (self.data.get("fold") or "test" in source.splits):
            problem = "a fold is the test" if self.data.get("fold") else f"there is a test: {source.files['test'][0]}"
            raise UserError(f"data.test_size={self.data['test_size']}: {problem}", "Leave it out.")
        for name in source.splits:
            source.splits[name] = with_ids(source, name, self.labels, self.data)
        where = ", ".join(source.files[first])
        if self.data.get("fold") and self.data.get("train_size") is None and self.data.get("eval_size") is None:
            self.folded = source.splits[first]
        self.rows = splits.divide(source.splits, self.labels, self.data, where)
        source.splits = {}  # the rows stand in `rows` now
        train = self.rows["train"]
        pairs = isinstance(self.data.get("text_column"), list)
        self.labels = replace(self.labels, counts=label_counts(train, self.labels), rows=len(train), pairs=pairs)
        if self.truncation != "end" and (pairs or task == "token"):
            what = "pairs of texts" if pairs else "tagged words"
            raise UserError(
                f"data.truncation={self.truncation} is for single texts, and these are {what}", "Leave it out."
            )
        require_classes(self.labels, where)

    def learnt(self) -> LabelSet:
        """The labels, with counts of what an epoch teaches: windows of long texts, all labelled parts of words."""
        targets = np.asarray(self.encoded["train"].labels)
        if self.labels.task == "multi_label":
            return replace(self.labels, counts=tuple(targets.sum(0).tolist()), rows=len(targets))
        counts = np.bincount(targets[targets >= 0], minlength=len(self.labels))
        return replace(self.labels, counts=tuple(counts.tolist()), rows=len(self.encoded["train"]))

    def tokens(self) -> np.ndarray:
        """The ids that training batches hold, padding included."""
        ids, padding = self.encoded["train"].ids, self.tokenizer.pad_token_id
        held = np.zeros(max(ids.max(), padding) + 1, dtype=bool)
        held[ids] = held[padding] = True
        return np.flatnonzero(held)

    def _leave_alone(self, *names: str) -> None:
        """Take splits out of what was read: `splits.divide` makes others of the rows of train."""
        for name in names:
            if name in self.source.splits:
                log.info("The %s split, %s, is left alone: data.fold divides train.", name, self.source.files[name][0])
                del self.source.splits[name], self.source.files[name]
        for noted in (self.source.skipped, self.source.inside):
            noted[:] = [note for note in noted if note[0] not in names]

    def place(self, split: str, row: dict[str, Any]) -> str:
        """Where a row stands: file and line."""
        return self.source.place(self._origin(split), row["file"], row["line"])

    def places(self, split: str) -> list[str]:
        """Where each row of a split stands, without the folder."""
        return _places(self.source, self._origin(split), self.rows[split])

    def groups(self, split: str) -> list[str | None]:
        """The group of each row, with ``data.group_column``; else empty."""
        return _groups(self.rows[split])

    def _origin(self, split: str) -> str:
        """The split in whose files the rows stand, of which they may have been held out."""
        return next(name for name in (split, "train", "all") if name in self.source.files)

    def _encode(self, rows: Any, score_subwords: bool) -> Encoded:
        options: dict[str, Any] = {
            "max_length": self.max_length,
            "truncation": self.truncation,
            "subword_labels": self.data["subword_labels"],
            "score_subwords": score_subwords,
        }
        texts, ids = Values(rows, "text"), Values(rows, "label")
        own = {"task": self.labels.task, "names": self.labels.names, "pairs": self.labels.pairs}
        key = encoding_key(texts, ids, self.tokenizer, {**options, **own})
        return cached_split(key, partial(encode_split, texts, ids, self.labels, self.tokenizer, **options))

    def check_batches(self) -> None:
        """Refuse a way to make training batches that the task, or another setting, does not allow."""
        sampler = self.data["sampler"]
        if sampler == "balanced" and self.labels.task != "sequence":
            raise UserError(
                f"data.sampler=balanced needs one label per text, and this is a {self.labels.task} task",
                "Use data.sampler=shuffle, with loss=balanced for class weights.",
            )
        plain = self.data["group_by_length"] and sampler == "shuffle" and self.data["padding"] == "longest"
        if self.data["tokens_per_batch"] and not plain:
            raise UserError(
                "data.tokens_per_batch needs rows of like length in a batch, each drawn once",
                "Leave out data.group_by_length=false, data.sampler=balanced and data.padding=max_length.",
            )

    def train_dataloader(self) -> DataLoader:
        encoded, processes, options = self._shared("train")
        batches = Batches(
            encoded,
            self.data["batch_size"],
            seed=self.seed,
            balanced=self.data["sampler"] == "balanced",
            by_length=self.data["group_by_length"],
            tokens=self.data["tokens_per_batch"],
            multiple=options["multiple"],
            start=self.start,
            **processes,
        )
        if self.data["tokens_per_batch"] or (self.labels.task == "token" and self.data["group_by_length"]):
            # The loss is a mean over the batch. Without weights a row would count for less in a batch of many short
            # ones, and the tokens of short sentences, which share batches, for more than those of long ones.
            labels = (encoded.labels != IGNORED).sum()
            options["usual"] = float(labels / (len(batches) * processes["world_size"]))
        return make_loader(encoded, batches, **options)

    def val_dataloader(self) -> DataLoader:
        encoded, processes, options = self._shared("validation")
        return evaluation_batches(encoded, self.data["eval_batch_size"], **processes, **options)

    def _shared(self, split: str) -> tuple[Encoded, dict[str, int], dict[str, Any]]:
        """A split, the place of this process among those that share it, and the options of its loader."""
        processes = {
            "rank": self.trainer.global_rank if self.trainer else 0,
            "world_size": self.trainer.world_size if self.trainer else 1,
        }
        # The kernels of GPUs take tokens by eights; and CUDA graphs want few different widths.
        multiple = 8 if self.trainer and self.trainer.strategy.root_device.type == "cuda" else 1
        options = {
            "pad_id": self.tokenizer.pad_token_id,
            "workers": self.data["num_workers"],
            "pad_to": self.max_length if self.data["padding"] == "max_length" else None,
            "multiple": multiple,
        }
        return self.encoded[split], processes, options


# Settings that say how rows become batches, and change nothing about the rows.
OF_BATCHES = ("batch_size", "eval_batch_size", "tokens_per_batch", "group_by_length", "sampler", "padding", "epochs",
              "num_workers")  # fmt: skip
_prepared: dict[str, TextDataModule] = {}  # the last one of this process


def prepared(
    data: dict[str, Any], encoder: Path, tokenizer: Callable[[Task], Any], max_length: int, seed: int
) -> TextDataModule:
    """A `TextDataModule` that is prepared; a run of a multirun takes rows and tokens over from the run before.

    Args:
        encoder: whose tokenizer it is.
        data, tokenizer, max_length, seed: of the module.

    Raises:
        UserError: for whatever is wrong with the data, or the way to make batches of it.
    """
    module = TextDataModule(data, tokenizer, max_length, seed)
    read = {name: value for name, value in data.items() if name not in OF_BATCHES}
    stamps = sorted((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in data_files(data))
    key = repr((read, encoder, max_length, stamps))
    if key in _prepared:
        vars(module).update({**vars(_prepared[key]), "data": data, "seed": seed})
    else:
        _prepared.clear()
        module.prepare()
        _prepared[key] = copy(module)  # now, since a trainer that is attached would live as long
    module.check_batches()
    return module


def _places(source: sources.Source, split: str, rows: Any) -> list[str]:
    pairs = zip(rows["file"][:], rows["line"][:], strict=True)
    return [short_place(source.place(split, file, line)) for file, line in pairs]


def _groups(rows: Any) -> list[str | None]:
    return rows[splits.GROUP][:] if splits.GROUP in rows.column_names else []


def load_labelled(
    data: dict[str, Any], labels: LabelSet, split: str, joined_by: str = ""
) -> tuple[list[Any], list[Any], list[str], list[str], list[str | None]]:
    """Rows of a new file with the labels of a finished run.

    Args:
        data: the ``data`` group, with ``path``.
        labels: of the run.
        split: which split, where the path is a folder of several.
        joined_by: punctuation inside the words of the run, for texts with marked entities.

    Returns:
        (texts, label ids, places of the rows, skipped rows, groups): the last are empty without ``data.group_column``.

    Raises:
        UserError: when the rows cannot be read, or do not fit the run; `NoGroups` when they only lack the groups.
    """
    if isinstance(data.get("text_column"), list) != labels.pairs:
        needs = "two columns, as in data.text_column=[premise,hypothesis]" if labels.pairs else "one column"
        raise UserError(
            f"data.text_column={data.get('text_column')}: the run takes its texts from {needs}", "Change it."
        )
    source = sources.load({**data, "joined_by": joined_by}, only=split)
    name = "all" if "all" in source.splits else split
    if (found := form_of(source)) != labels.task and "token" in (found, labels.task):
        where = ", ".join(source.files[name])
        needs = FORMS[labels.task] + (", or a text with marked entities" if labels.entities else "")
        raise UserError(f"{where}: each row has {FORMS[found]}", f"The run needs rows with {needs}.")
    detect_task(source, data)  # and give the labels its form
    rows = with_ids(source, name, labels, data)
    skipped = [f"{place}: {problem}" for _, place, problem in source.skipped]
    return rows["text"][:], rows["label"][:], _places(source, name, rows), skipped, _groups(rows)

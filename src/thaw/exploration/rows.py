"""All rows of a data set with consecutive numbers, read a chunk at a time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from thaw.data.module import TextDataModule
from thaw.data.rows import Values

LONGEST = 300  # characters of a text
Text = str | Sequence[str]


class AllRows:
    """The rows of all splits, numbered consecutively.

    Args:
        data: prepared.
    """

    def __init__(self, data: TextDataModule) -> None:
        self.data, self.labels, self.names = data, data.labels, list(data.rows)
        # Without the labels, of which an empty list of each row in a split has another type.
        self.texts = concatenate_datasets([data.rows[name].select_columns(["text"]) for name in self.names])
        self.starts = np.concatenate(([0], np.cumsum([len(data.rows[name]) for name in self.names])))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def splits(self, numbers: np.ndarray) -> np.ndarray:
        """The index of the split that each row belongs to."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def stream(self, numbers: np.ndarray | None = None) -> Iterator[Text]:
        """The texts of all rows, or of those with the given numbers; a chunk at a time is in memory."""
        return iter(Values(self.texts if numbers is None else self.texts.select(numbers), "text"))

    def label_keys(self) -> np.ndarray:
        """A key for each row that is equal for rows with the same label or labels."""
        if self.labels.task == "sequence":
            return np.concatenate([self.data.encoded[name].labels for name in self.names])
        keys = (hash(np.asarray(own).tobytes()) for name in self.names for own in self.label_ids(name))
        return np.fromiter(keys, dtype=np.int64, count=len(self))

    def label_ids(self, split: str) -> Iterator[np.ndarray]:
        """The labels of each row as `Encoded` keeps them; for token tasks the tag of every word."""
        encoded = self.data.encoded[split]
        if self.labels.task != "token":
            yield from encoded.labels
            return
        for first, last in pairwise(encoded.tag_offsets):
            yield encoded.tags[first:last]

    def described(self, number: int) -> dict[str, Any]:
        """A row for the page: its split, number (from 1), place in the files, text and label."""
        place = int(self.splits(np.array([number]))[0])
        name = self.names[place]
        row = self.data.rows[name][int(number - self.starts[place])]
        shown = {"split": name, "row": int(number - self.starts[place]) + 1, "place": self.data.place(name, row)}
        if self.labels.task == "token":
            return {**shown, "words": row["text"], "label": [self.labels.names[i] for i in row["label"]]}
        ids = row["label"] if self.labels.task == "multi_label" else [row["label"]]
        text = row["text"] if len(row["text"]) <= LONGEST else row["text"][:LONGEST] + " …"
        return {**shown, "text": text, "label": ", ".join(self.labels.names[i] for i in ids) or "none"}

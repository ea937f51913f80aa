"""Which rows form a batch, and how they become tensors.

The order of the batches is a pure function of the seed and the epoch, so that a run can resume in the middle of an
epoch: the number of completed batches is all it has to remember.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from thaw.data.encoding import Encoded
from thaw.data.ragged import pad_rows, sorted_batches
from thaw.labels import IGNORED

POOL = 50  # batches whose rows are sorted by length together


def shuffled_batches(
    lengths: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    weights: np.ndarray | None = None,
    by_length: bool = True,
) -> list[np.ndarray]:
    """Row numbers of each training batch of one epoch.

    Rows are shuffled, sorted by length within pools of `POOL` batches, cut into batches, and the batches are shuffled
    again: little padding, and yet each epoch combines other rows (the scheme of the Hugging Face
    ``LengthGroupedSampler``, with shuffled batches).

    Args:
        lengths: tokens of each row.
        batch_size: rows in a batch; the last one may be smaller.
        weights: draw rows with these probabilities and with replacement, instead of each row once.
        by_length: False for plain shuffling.
    """
    generator = np.random.default_rng((seed, epoch))
    rows = len(lengths)
    order = generator.permutation(rows) if weights is None else generator.choice(rows, size=rows, p=weights)
    if not by_length:
        return [order[start : start + batch_size] for start in range(0, rows, batch_size)]
    batches: list[np.ndarray] = []
    for start in range(0, rows, POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return in_turn(batches, lengths, generator, epoch)


def in_turn(
    batches: list[np.ndarray], lengths: np.ndarray, generator: np.random.Generator, epoch: int
) -> list[np.ndarray]:
    """Batches in random order, except that the first batch of a run is the one that needs the most memory.

    So a run that does not fit into memory fails at once, and later steps fit into the memory of the first.
    """
    order = generator.permutation(len(batches))
    if epoch == 0:
        sizes = [len(batches[i]) * int(lengths[batches[i]].max()) for i in order]
        largest = int(np.argmax(sizes))
        order[[0, largest]] = order[[largest, 0]]
    return [batches[i] for i in order]


def token_batches(lengths: np.ndarray, tokens: int, *, seed: int, epoch: int, world_size: int = 1) -> list[np.ndarray]:
    """Row numbers of each training batch of one epoch, with a budget of tokens instead of a number of rows.

    All rows are sorted by length, with rows of equal length in random order, and cut into batches, which are shuffled.
    So every epoch has the same number of batches of the same sizes, which schedules and resuming rely on.

    Args:
        tokens: the most a batch may hold, padding included; a longer text has a batch of its own.
        world_size: processes that share each batch, each with this budget.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        rows = max(tokens // int(lengths[order[start]]), 1) * world_size
        batches.append(order[start : start + rows])
        start += rows
    return in_turn(batches, lengths, generator, epoch)


def rounded(lengths: Any, multiple: int, longest: int) -> Any:
    """A length, or an array of lengths, rounded up to a multiple, but to no more than the longest."""
    return np.minimum(-(-lengths // multiple) * multiple, longest)


def sampling_probabilities(label_ids: np.ndarray) -> np.ndarray:
    """Probability of drawing each row such that every class is drawn equally often."""
    counts = np.bincount(label_ids)
    weights = 1.0 / counts[label_ids]
    return weights / weights.sum()


class Batches:
    """A sampler of whole training batches: shuffled, and the same number of them in every process.

    Given to ``DataLoader(sampler=..., batch_size=None)``; Lightning calls `set_epoch` before each epoch.

    Args:
        encoded: the split.
        batch_size: rows in a batch of one process.
        seed: of the order.
        balanced: draw classes equally often (single-label tasks).
        by_length: group rows of like length.
        tokens: fill batches up to this many tokens, instead of ``batch_size`` rows.
        multiple: batches are padded to a multiple of this many tokens, see `EncodedDataset`.
        rank: number of this process.
        world_size: number of processes.
        start: (epoch, batches to skip in it), when a run resumes.
    """

    def __init__(
        self,
        encoded: Encoded,
        batch_size: int,
        *,
        seed: int = 0,
        balanced: bool = False,
        by_length: bool = True,
        tokens: int | None = None,
        multiple: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start: tuple[int, int] = (0, 0),
    ) -> None:
        kept = np.asarray(encoded.kept)
        self.lengths = rounded(kept, multiple, int(kept.max()))
        self.weights = sampling_probabilities(np.asarray(encoded.labels)) if balanced else None
        self.batch_size, self.seed, self.by_length = batch_size, seed, by_length
        self.tokens = tokens
        self.rank, self.world_size, self.start = rank, world_size, start
        self.epoch = start[0]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._joint()) if self.tokens else -(-len(self.lengths) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        skip = self.start[1] if self.epoch == self.start[0] else 0
        for batch in self._joint()[skip:]:
            # Every process must take the same number of steps: if there are fewer rows than processes, some repeat.
            yield np.resize(batch, max(len(batch), self.world_size))[self.rank :: self.world_size].tolist()

    def _joint(self) -> list[np.ndarray]:
        """The batches of all processes together."""
        draw = {"seed": self.seed, "epoch": self.epoch}
        if self.tokens:
            return token_batches(self.lengths, self.tokens, **draw, world_size=self.world_size)
        rows = self.batch_size * self.world_size
        return shuffled_batches(self.lengths, rows, **draw, weights=self.weights, by_length=self.by_length)


class EncodedDataset(torch.utils.data.Dataset):
    """Turns row numbers into one batch of padded tensors.

    Args:
        encoded: the split.
        pad_id: id of the padding token.
        pad_to: pad every batch to this length; None pads to the longest row of the batch.
        usual: the average number of labels in a batch, if batches are to be weighted by how many they hold.
        multiple: pad to a multiple of this many tokens, but not beyond the longest row of the split.
    """

    def __init__(
        self, encoded: Encoded, pad_id: int, pad_to: int | None = None, usual: float | None = None, multiple: int = 1
    ) -> None:
        self.encoded, self.pad_id, self.pad_to, self.usual = encoded, pad_id, pad_to, usual
        self.multiple, self.longest = multiple, int(np.diff(encoded.offsets).max())

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, rows: list[int]) -> dict[str, Any]:
        """A batch.

        Returns:
            ``input_ids`` and ``attention_mask`` (rows, tokens), ``padded`` (whether the mask hides anything),
            ``labels`` as in `Encoded`, ``rows`` (their numbers), of windows also ``sentences`` (what they belong to),
            and for token tasks ``words`` (rows, tokens) and ``tags`` (rows, words of the sentence), padded with -1 and
            `IGNORED`. With ``usual`` also ``weight``, the factor for the mean loss of the batch.
        """
        data, index = self.encoded, np.asarray(rows)
        longest = int((data.offsets[index + 1] - data.offsets[index]).max())
        width = self.pad_to or int(rounded(longest, self.multiple, self.longest))
        ids, mask = pad_rows(data.ids, data.offsets, index, self.pad_id, width)
        batch = {"input_ids": ids, "attention_mask": mask, "rows": index}
        if len(data.sentences):
            batch["sentences"] = np.asarray(data.sentences[index])
        if len(data.tag_offsets):
            batch["labels"], _ = pad_rows(data.labels, data.offsets, index, IGNORED, width)
            batch["words"], _ = pad_rows(data.words, data.offsets, index, -1, width)
            batch["tags"], _ = pad_rows(data.tags, data.tag_offsets, batch["sentences"], IGNORED)
        else:
            batch["labels"] = np.asarray(data.labels[index], dtype=np.int64)
        if self.usual:
            batch["weight"] = np.array((batch["labels"] != IGNORED).sum() / self.usual, dtype=np.float32)
        return {**{name: torch.from_numpy(array) for name, array in batch.items()}, "padded": not mask.all()}


def make_loader(
    encoded: Encoded, batches: Iterable[list[int]], pad_id: int, workers: int = 0, **options: Any
) -> torch.utils.data.DataLoader:
    """A DataLoader over whole batches that draws no random numbers from torch's global state.

    Args:
        batches: row numbers of each batch.
        workers: processes that assemble batches.
        encoded, pad_id, options: of `EncodedDataset`.
    """
    return torch.utils.data.DataLoader(
        EncodedDataset(encoded, pad_id, **options),
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def evaluation_batches(
    encoded: Encoded, batch_size: int, pad_id: int, *, rank: int = 0, world_size: int = 1, **options: Any
) -> torch.utils.data.DataLoader:
    """Every row of a split once, longest first, divided among processes by `sorted_batches`.

    Args:
        encoded, pad_id, options: of `make_loader`.
    """
    batches = [batch.tolist() for batch in sorted_batches(encoded.kept, batch_size, rank, world_size)]
    return make_loader(encoded, batches, pad_id, **options)

"""The frozen prefix: the output of frozen layers is computed once, stored, and read in every step.

Below the first trainable layer a network is a pure function of its input, since frozen blocks stay in eval mode. So a
step needs only the layers above, fed with stored hidden states: the same losses for a fraction of the work.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from thaw.cache import cache_folder, cached, make_room, open_array
from thaw.models.checksum import checksum
from thaw.models.encoder import blocks, layers_of
from thaw.models.forward import evaluating, layers_returning, output_of, reads_first_token, tiny_batch
from thaw.models.onednn import preferred

Batch = dict[str, Tensor]
KIND = "prefix"
# Settings that do not affect what frozen layers compute.
NO_PART = re.compile("drop|label|problem|^_|architectures|dtype|version")


class Split(Protocol):
    """The parts of an encoded split that are used here: row ``i`` owns ``ids[offsets[i]:offsets[i + 1]]``."""

    @property
    def ids(self) -> np.ndarray: ...

    @property
    def offsets(self) -> np.ndarray: ...


class Unusable(Exception):
    """Why a prefix cannot be reused."""


@dataclass(frozen=True)
class States:
    """Stored hidden states of a split, real tokens only.

    Args:
        values: (tokens of all rows, size); bfloat16 is stored as int16, since numpy has no bfloat16.
        starts: where each row starts.
        ends: where each row ends.
    """

    values: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @property
    def nbytes(self) -> int:
        return int((self.ends - self.starts).sum()) * self.values.shape[1] * self.values.itemsize

    def of(self, rows: np.ndarray, width: int) -> Tensor:
        """Hidden states of some rows: (rows, width, size), zero beyond the end of a row."""
        starts, ends = self.starts[rows], self.ends[rows]
        if width == 1:
            values = self.values[starts][:, None]
        else:
            values = np.zeros((len(rows), width, self.values.shape[1]), dtype=self.values.dtype)
            for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
                values[i, : end - start] = self.values[start:end]
        states = torch.from_numpy(values)
        return states.view(torch.bfloat16) if states.dtype == torch.int16 else states


def rows_of(split: Split) -> Iterator[bytes]:
    """The token ids of each row."""
    ids = np.asarray(split.ids)
    for start, end in pairwise(split.offsets):
        yield ids[start:end].tobytes()


class FrozenPrefix:
    """A network whose lowest layers are read from the cache.

    Args:
        network: an encoder with a head, on its final device.
        depth: frozen layers from the bottom, besides the embeddings.
        batches: gives the batches of a split, each row once, for the one pass through the frozen layers.
        limit: bytes that stored states may take; the least recently used are deleted to make room.
        dtype: float32, or bfloat16, which takes half the space and rounds hidden states to three digits.
        context: the precision in which the network runs.
        also: what else the states depend on, if only in the last bit, such as the batch size.
        held: keys of stored states that this run needs and that must not be deleted; it is updated in place.
        pool: rows that several runs share, each with its own splits: their states are stored once for all.

    Raises:
        Unusable: when the layers above do not run on their own, as a comparison with the whole network shows.
    """

    def __init__(
        self,
        network: Any,
        depth: int,
        batches: Callable[[Split], Iterable[Batch]],
        *,
        limit: int,
        dtype: str = "float32",
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        also: Any = None,
        held: set[str] | None = None,
        pool: Split | None = None,
    ) -> None:
        self.pool = pool
        self.places = {ids: row for row, ids in enumerate(rows_of(pool))} if pool else {}
        self.network, self.depth, self.batches, self.limit, self.context = network, depth, batches, limit, context
        self.held = set() if held is None else held
        self.layers = [layer for _, layer in layers_of(network)]
        ids, mask = tiny_batch(network)
        try:
            with evaluating(network), context():
                hidden, self.form = output_of(network, self.layers, ids, mask, depth)
                whole = network(input_ids=ids, attention_mask=mask).logits
                with layers_returning(self.layers[:depth], hidden, self.form):
                    alone = network(input_ids=ids, attention_mask=mask).logits
        except Exception as error:  # whatever an encoder with another structure raises
            raise Unusable(f"the layers of this encoder do not run separately: {error}") from error
        if hidden.shape[1] > ids.shape[1]:  # Longformer pads rows to a multiple of its window
            raise Unusable("the layers of this encoder get more tokens than its input has")
        if not torch.allclose(whole, alone, rtol=1e-4, atol=1e-5):
            raise Unusable(f"the layers above layer {depth} of this encoder do not run on their own")
        # If all layers are frozen and the head reads only the first token, only its state is stored.
        self.first_only = depth == len(self.layers) and reads_first_token(network)
        self.size, self.computed = hidden.shape[-1], hidden.dtype
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else hidden.dtype
        # As which numpy, which has no bfloat16, holds it.
        self.raw = "int16" if self.dtype == torch.bfloat16 else str(self.dtype).removeprefix("torch.")
        self.key = self._key(also)

    def _key(self, also: Any) -> str:
        """A key that changes with the weights of the prefix, how it is computed and stored, and the libraries."""
        import transformers

        config = {name: value for name, value in self.network.config.to_dict().items() if not NO_PART.search(name)}
        settings = [
            *(torch.__version__, transformers.__version__, str(self.dtype), self.first_only, self.depth, also),
            *(next(self.network.parameters()).device.type, self.network.config._attn_implementation, config),
            preferred(),
            *([self.raw] if self.raw in ("float16", "float64") else []),  # earlier versions stored float32
        ]
        below = (pair for part in blocks(self.network)[: self.depth + 1] for pair in part.parameters())
        return checksum(below, settings)

    def states(self, splits: Sequence[Split]) -> list[States]:
        """The states of some splits: from the cache, or computed by one pass through the frozen layers.

        Room is made for all of them first, and this run does not delete them to make room for others.

        Raises:
            Unusable: when they would not fit.
        """
        found = [
            (self._split_key(stored), stored, self._offsets(stored), rows)
            for stored, rows in map(self._stored_with, splits)
        ]
        sizes = {key: int(offsets[-1]) * self.size * self.dtype.itemsize for key, _, offsets, _ in found}
        keep = self.held | set(sizes)
        missing = sum(size for key, size in sizes.items() if not (cache_folder() / KIND / key).is_dir())
        if missing and not make_room(KIND, missing, self.limit, keep):
            total = sum(sizes.values()) / 1e9
            raise Unusable(f"its {total:.1f} GB of hidden states do not fit into the cache or on the disk")
        self.held |= keep
        states = []
        for key, stored, offsets, rows in found:
            compute = partial(self._compute, stored, offsets)
            values = cached(KIND, key, compute, lambda folder: open_array(folder / "states.npy"))
            states.append(States(values, offsets[:-1][rows], offsets[1:][rows]))
        return states

    def _stored_with(self, split: Split) -> tuple[Split, Any]:
        """What a split is stored with, and as which of its rows: the pool, where that has all of them, else itself."""
        if self.pool is not None:
            rows = [self.places.get(ids) for ids in rows_of(split)]
            if None not in rows:
                return self.pool, np.array(rows)
        return split, slice(None)

    def _offsets(self, split: Split) -> np.ndarray:
        return np.arange(len(split.offsets)) if self.first_only else np.asarray(split.offsets)

    def _split_key(self, split: Split) -> str:
        return checksum([("ids", split.ids), ("offsets", split.offsets)], self.key)

    def _compute(self, split: Split, offsets: np.ndarray, folder: Path) -> None:
        shape = (int(offsets[-1]), self.size)
        values = np.lib.format.open_memmap(folder / "states.npy", mode="w+", dtype=self.raw, shape=shape)
        if hasattr(os, "posix_fallocate"):  # the file is sparse: a full disk would kill the process by SIGBUS
            with (folder / "states.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        device = next(self.network.parameters()).device
        with evaluating(self.network), self.context():
            for batch in self.batches(split):
                ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
                hidden = output_of(self.network, self.layers, ids, mask, self.depth)[0].to(self.dtype).cpu()
                array = (hidden.view(torch.int16) if self.dtype == torch.bfloat16 else hidden).numpy()
                for row, states in zip(batch["rows"].numpy(), array, strict=True):
                    start, end = offsets[row], offsets[row + 1]
                    values[start:end] = states[: end - start]
        values.flush()

    def __call__(self, states: States, batch: Batch) -> Tensor:
        """The logits of a batch, equal to those of the whole network."""
        device = next(self.network.parameters()).device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        if self.first_only:
            ids, mask = ids[:, :1], mask[:, :1]
        hidden = states.of(batch["rows"].cpu().numpy(), ids.shape[1]).to(device, self.computed)
        with layers_returning(self.layers[: self.depth], hidden, self.form):
            return self.network(input_ids=ids, attention_mask=mask).logits

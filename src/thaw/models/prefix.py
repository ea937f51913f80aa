"""The frozen prefix: what layers that do not train give out is computed once, stored, and read in every step.

Below the first layer that trains a network is a pure function of its input, since frozen blocks stay in eval mode. So
a step needs only the layers above, fed with stored hidden states: the same losses, for a part of the work.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from thaw.cache import cache_folder, cached, make_room, open_array
from thaw.models.checksum import checksum
from thaw.models.encoder import blocks, layers_of
from thaw.models.onednn import preferred
from thaw.models.speed import evaluating, layers_returning, output_of, reads_first_token, tiny_batch

Batch = dict[str, Tensor]
KIND = "prefix"
# Settings that have no part in what frozen layers compute.
NO_PART = re.compile("drop|label|problem|^_|architectures|dtype|version")


class Split(Protocol):
    """What is needed of an encoded split: row ``i`` owns ``ids[offsets[i]:offsets[i + 1]]``."""

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
        values: (tokens of all rows, size); bfloat16 numbers are kept as int16, which numpy knows.
        offsets: where each row starts, one more than rows.
    """

    values: np.ndarray
    offsets: np.ndarray

    def of(self, rows: np.ndarray, width: int) -> Tensor:
        """(rows, width, size), zero where a row is shorter."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        if width == 1:
            values = self.values[starts][:, None]
        else:
            values = np.zeros((len(rows), width, self.values.shape[1]), dtype=self.values.dtype)
            for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
                values[i, : end - start] = self.values[start:end]
        states = torch.from_numpy(values)
        return states.view(torch.bfloat16) if states.dtype == torch.int16 else states


class FrozenPrefix:
    """A network whose lowest layers are read from the cache.

    Args:
        network: an encoder with a head, on the device that it stays on.
        depth: layers from the bottom that are frozen, with the embeddings.
        batches: gives the batches of a split, each row once, for the one pass of the frozen layers.
        limit: bytes that stored states may take; those unused for longest make room.
        dtype: float32, or bfloat16 for half the room: that rounds hidden states to three digits.
        context: the precision in which the network is run.
        also: what else the states depend on, such as the size of the batches, to the last bit.
        held: keys of stored states that this run needs, and which make no room for others; they are added to.

    Raises:
        Unusable: when the layers above do not run alone, told by comparing with the whole network.
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
    ) -> None:
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
        except Exception as error:  # whatever an encoder that is built otherwise stumbles over
            raise Unusable(f"the layers of this encoder do not run apart: {error}") from error
        if hidden.shape[1] > ids.shape[1]:  # Longformer fills rows up to its window
            raise Unusable("the layers of this encoder get more tokens than it is given")
        if not torch.allclose(whole, alone, rtol=1e-4, atol=1e-5):
            raise Unusable(f"the layers above layer {depth} of this encoder do not run alone")
        # A head above frozen layers alone may read one vector of each text: then no other is stored.
        self.first_only = depth == len(self.layers) and reads_first_token(network)
        self.size, self.computed = hidden.shape[-1], hidden.dtype
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else hidden.dtype
        self.key = self._key(also)

    def _key(self, also: Any) -> str:
        """Changes with any weight of the prefix, with how it is computed and stored, and with the libraries."""
        import transformers

        config = {name: value for name, value in self.network.config.to_dict().items() if not NO_PART.search(name)}
        settings = [
            *(torch.__version__, transformers.__version__, str(self.dtype), self.first_only, self.depth, also),
            *(next(self.network.parameters()).device.type, self.network.config._attn_implementation, config),
            preferred(),
        ]
        below = (pair for part in blocks(self.network)[: self.depth + 1] for pair in part.parameters())
        return checksum(below, settings)

    def reserve(self, splits: Sequence[Split]) -> None:
        """Make room for the states of several splits, which from now on make room for no others of this run.

        Raises:
            Unusable: when they would not fit.
        """
        sizes = {self._split_key(split): int(self._offsets(split)[-1]) * self.size * self.dtype.itemsize
                 for split in splits}  # fmt: skip
        keep = self.held | set(sizes)
        missing = sum(size for key, size in sizes.items() if not (cache_folder() / KIND / key).is_dir())
        if missing and not make_room(KIND, missing, self.limit, keep):
            total = sum(sizes.values()) / 1e9
            raise Unusable(f"its {total:.1f} GB of hidden states do not fit into the cache or on the disk")
        self.held |= keep

    def states(self, split: Split) -> States:
        """Those of a split: from the cache, or computed by one pass of the frozen layers.

        Raises:
            Unusable: when they would not fit.
        """
        self.reserve([split])
        offsets = self._offsets(split)
        return cached(
            KIND,
            self._split_key(split),
            lambda folder: self._compute(split, offsets, folder),
            lambda folder: States(open_array(folder / "states.npy"), offsets),
        )

    def _offsets(self, split: Split) -> np.ndarray:
        return np.arange(len(split.offsets)) if self.first_only else np.asarray(split.offsets)

    def _split_key(self, split: Split) -> str:
        return checksum([("ids", split.ids), ("offsets", split.offsets)], self.key)

    def _compute(self, split: Split, offsets: np.ndarray, folder: Path) -> None:
        shape, raw = (int(offsets[-1]), self.size), np.int16 if self.dtype == torch.bfloat16 else np.float32
        values = np.lib.format.open_memmap(folder / "states.npy", mode="w+", dtype=raw, shape=shape)
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
        """The logits of a batch, as the whole network gives them."""
        device = next(self.network.parameters()).device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        if self.first_only:
            ids, mask = ids[:, :1], mask[:, :1]
        hidden = states.of(batch["rows"].cpu().numpy(), ids.shape[1]).to(device, self.computed)
        with layers_returning(self.layers[: self.depth], hidden, self.form):
            logits: Tensor = self.network(input_ids=ids, attention_mask=mask).logits
        return logits

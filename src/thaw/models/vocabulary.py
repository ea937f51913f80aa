"""Training only those rows of the embedding matrix that training texts use.

A token that no training text holds has a gradient of zero in every step, and AdamW does no more to its row than decay
it. So only the other rows need gradients and moments, and a decay can wait until someone reads the row: the same
updates, without touching all of a vocabulary of 30,000 to 250,000 tokens in each step.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class UsedRows(nn.Embedding):
    """An embedding whose parameter holds only the rows that training uses; in eval mode it knows all tokens.

    Attributes:
        weight: (used rows, size), the parameter; in the state, under the same name, are all rows, as of `settle`.
        table: (all rows, size), out of date in training.
        used: (used rows), the token of each row of ``weight``.
        places: (all rows), where each token stands in ``weight``; -1 for those without a place.
        decay: what AdamW would have multiplied the other rows by since `settle`, which is part of a checkpoint: a
            run that settled when it is saved, too, would end with other last digits.
    """

    table: Tensor
    used: Tensor
    places: Tensor
    decay: float

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.embedding(input, self.table)
        return nn.functional.embedding(self.places[input], self.weight, self.padding_idx)

    def train(self, mode: bool = True) -> "UsedRows":
        if not mode:
            self.settle()
        return super().train(mode)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the table up to date, as entering eval mode does."""
        if self.decay != 1.0:
            self.table.mul_(self.decay)
            self.decay = 1.0
        self.table.index_copy_(0, self.used, self.weight)

    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Remember the decay of a step; a hook of the optimizer."""
        if self.weight.grad is not None:  # else the step left it out, as a strategy wants whose first stages freeze it
            group = next(own for own in optimizer.param_groups if any(each is self.weight for each in own["params"]))
            self.decay *= 1 - float(group["lr"]) * group["weight_decay"]

    def cut(self, moments: dict[int, dict[str, Any]]) -> None:
        """Leave only the used rows of what an optimizer saved that had all of them, as in earlier versions."""
        for state in moments.values():
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape == self.table.shape:
                    state[name] = value[self.used.to(value.device)]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Neither parameters nor buffers, which several processes would send each other in every step.
        self.table, self.used, self.places = fn(self.table), fn(self.used), fn(self.places)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with torch.no_grad():
            self.table.index_copy_(0, self.used, self.weight)
        destination[prefix + "weight"] = self.table

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if prefix + "weight" in state_dict:
            with torch.no_grad():
                self.table.copy_(state_dict[prefix + "weight"])
                self.weight.copy_(self.table[self.used])


def train_used_rows(network: Any, groups: list[dict[str, Any]], tokens: np.ndarray) -> None:
    """Leave only the rows of some tokens to the optimizer, in place, if the embedding matrix trains.

    Args:
        network: an encoder with a head, in training mode.
        groups: the parameter groups for an AdamW that is yet to be made, with `UsedRows.after_step` as a hook.
        tokens: all that training uses, padding included.
    """
    embedding: Any = _embedding(network)
    if type(embedding) is not nn.Embedding or embedding.max_norm or embedding.scale_grad_by_freq or embedding.sparse:
        return
    group = next((own for own in groups if any(each is embedding.weight for each in own["params"])), None)
    if group is None:
        return
    table = embedding.weight.detach()
    used = torch.from_numpy(tokens).long()
    places = torch.full((len(table),), -1)
    places[used] = torch.arange(len(used))
    if embedding.padding_idx is not None:
        embedding.padding_idx = int(places[embedding.padding_idx])
    weight = nn.Parameter(table[used], embedding.weight.requires_grad)
    group["params"] = [weight if each is embedding.weight else each for each in group["params"]]
    embedding.__class__ = UsedRows
    vars(embedding).update(table=table, used=used, places=places, decay=1.0)
    embedding.weight = weight


def used_rows(network: Any) -> UsedRows | None:
    """The embedding of a network, if only its used rows train."""
    embedding = _embedding(network)
    return embedding if isinstance(embedding, UsedRows) else None


def _embedding(network: Any) -> nn.Module | None:
    with suppress(NotImplementedError):  # an encoder that embeds in another way
        return network.get_input_embeddings()
    return None

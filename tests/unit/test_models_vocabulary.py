"""Training only the rows of the embedding matrix that are used is training all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thaw.labels import LabelSet
from thaw.models.encoder import load_encoder
from thaw.models.forward import evaluating
from thaw.models.vocabulary import UsedRows, train_used_rows, used_rows
from tiny_models import ARCHITECTURES

Encoders = Callable[[str], Path]
WORDS = "bert.embeddings.word_embeddings.weight"
LABELS = LabelSet("sequence", ("joy", "anger", "fear"), (5, 3, 2), rows=10)


class Training:
    """A network with its AdamW; everything but the dropout, which would draw other numbers, as in a run."""

    def __init__(self, folder: Path, tokens: np.ndarray | None, weight_decay: float = 0.1) -> None:
        torch.manual_seed(0)  # of the head
        self.network: Any = load_encoder(folder, LABELS, {"dropout": 0.0}).train()
        groups = [{"params": [*self.network.parameters()], "lr": 0.01, "weight_decay": weight_decay}]
        if tokens is not None:
            train_used_rows(self.network, groups, tokens)
        self.optimizer = torch.optim.AdamW(groups)
        if embedding := used_rows(self.network):
            self.optimizer.register_step_post_hook(embedding.after_step)

    def step(self, ids: torch.Tensor, lr: float = 0.01) -> float:
        self.optimizer.param_groups[0]["lr"] = lr
        loss = torch.nn.functional.cross_entropy(self.network(ids).logits, torch.arange(len(ids)) % 3)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item() + norm.item()

    def state(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.network.eval().state_dict().items()}

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        with evaluating(self.network):
            return self.network(ids).logits


def batches(padding: int) -> torch.Tensor:
    """Six batches of four rows: of the tokens 6 to 17, and padding."""
    ids = torch.randint(6, 18, (6, 4, 7), generator=torch.Generator().manual_seed(3))
    ids[:, 1, 4:] = padding
    return ids


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_weights_as_when_all_rows_train(architecture: str, encoders: Encoders) -> None:
    plain = Training(encoders(architecture), None)
    ids = batches(plain.network.config.pad_token_id)
    own = Training(encoders(architecture), np.unique(ids))
    embedding = used_rows(own.network)
    assert embedding is not None
    assert len(embedding.weight) == len(np.unique(ids)) < len(embedding.table) / 2
    others = torch.randint(6, 40, (3, 5), generator=torch.Generator().manual_seed(4))  # with tokens not in training
    for number, batch in enumerate(ids):
        losses = [training.step(batch, lr=0.01 / (number + 1)) for training in (plain, own)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        if number == 2:  # a validation between steps
            assert torch.allclose(plain.logits(others), own.logits(others), atol=1e-4)
    before, after = plain.state(), own.state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.allclose(value, after[name], atol=1e-4), name


def test_rows_that_are_not_used_decay_as_adamw_would_have_it(encoders: Encoders) -> None:
    plain = Training(encoders("bert"), None)
    first = plain.network.get_input_embeddings().weight[30].detach().clone()
    ids = batches(plain.network.config.pad_token_id)
    own = Training(encoders("bert"), np.unique(ids))
    for batch in ids:
        plain.step(batch)
        own.step(batch)
    row = own.state()[WORDS][30]
    assert torch.allclose(row, plain.network.get_input_embeddings().weight[30])
    assert torch.allclose(row, first * (1 - 0.01 * 0.1) ** len(ids))
    assert not torch.allclose(row, first)


def test_rows_do_not_decay_in_stages_that_leave_the_embeddings_frozen(encoders: Encoders) -> None:
    own = Training(encoders("bert"), np.arange(18))
    embedding = own.network.get_input_embeddings()
    before = own.state()[WORDS]
    own.network.train()
    embedding.weight.requires_grad_(False)
    own.step(batches(0)[0])
    assert torch.equal(own.state()[WORDS], before)
    own.network.train()
    embedding.weight.requires_grad_(True)
    own.step(batches(0)[0])
    assert torch.allclose(own.state()[WORDS][18:], before[18:] * (1 - 0.01 * 0.1))


def test_a_state_is_read_again_and_moments_of_all_rows_are_cut(encoders: Encoders) -> None:
    plain, own = (Training(encoders("bert"), tokens) for tokens in (None, np.arange(18)))
    ids = batches(0)
    plain.step(ids[0])
    own.step(ids[0])
    resumed = Training(encoders("bert"), np.arange(18))
    resumed.network.load_state_dict(plain.state())
    saved = plain.optimizer.state_dict()
    embedding = used_rows(resumed.network)
    assert embedding is not None
    embedding.cut(saved["state"])
    resumed.optimizer.load_state_dict(saved)
    for training in (own, resumed):
        training.step(ids[1])
    ends = own.state(), resumed.state()
    for name, value in ends[0].items():
        assert torch.allclose(value, ends[1][name], atol=1e-5), name


def test_frozen_embeddings_and_those_of_a_kind_of_their_own_stay_as_they_are(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: Any = load_encoder(encoders("bert"), LABELS, {})
    train_used_rows(network, [{"params": [*network.classifier.parameters()]}], np.arange(18))
    assert used_rows(network) is None
    groups = [{"params": [*network.parameters()]}]
    network.get_input_embeddings().max_norm = 1.0
    train_used_rows(network, groups, np.arange(18))
    assert used_rows(network) is None
    network.get_input_embeddings().max_norm = None

    def unknown() -> None:  # as transformers says of encoders that embed in another way
        raise NotImplementedError

    with monkeypatch.context() as patch:
        patch.setattr(network, "get_input_embeddings", unknown)
        train_used_rows(network, groups, np.arange(18))
        assert used_rows(network) is None
    train_used_rows(network, groups, np.arange(18))
    assert isinstance(used_rows(network), UsedRows)

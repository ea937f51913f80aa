"""Faster ways to compute give what the plain ones give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from thaw.labels import LabelSet
from thaw.models import onednn, speed
from thaw.models.encoder import layers_of, load_encoder
from tiny_models import ARCHITECTURES

Encoders = Callable[[str], Path]
LABELS = {
    "sequence": LabelSet("sequence", ("joy", "anger", "fear"), (5, 3, 2), rows=10),
    "token": LabelSet("token", ("O", "B-PER", "I-PER"), (8, 1, 1), rows=10),
}
# Families whose [CLS] head reads one token, and whose last layer is known.
FIRST_TOKEN = {"bert", "bert_cased", "distilbert", "roberta", "xlm_roberta", "electra"}


def loud(network: nn.Module) -> nn.Module:
    """Random weights of such a size that a wrong computation shows in the logits."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(noise / 2)  # biases begin at zero, where one left out would not be missed
    return network


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(6, 30, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    mask[2, 2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("task", ["sequence", "token"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_gradients_stay_the_same(
    architecture: str, task: str, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "preferred", torch.backends.mkldnn.is_available)  # also by other makers' processors
    settings = {"dropout": 0.0}
    plain = loud(load_encoder(encoders(architecture), LABELS[task], settings)).train()
    fast = loud(load_encoder(encoders(architecture), LABELS[task], settings)).train()
    speed.accelerate(fast)
    assert any(isinstance(module, onednn.Linear) for module in fast.modules()) == torch.backends.mkldnn.is_available()
    assert ("forward" in vars(layers_of(fast)[-1][1])) == (task == "sequence" and architecture in FIRST_TOKEN)
    results = [network(**batch()).logits for network in (plain, fast)]
    assert torch.allclose(*results, atol=1e-5)
    for logits in results:
        logits.square().sum().backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in fast.named_parameters():
        if theirs[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            scale = theirs[name].grad.abs().max()  # type: ignore[union-attr]
            assert torch.allclose(parameter.grad, theirs[name].grad, atol=1e-4 * float(scale) + 5e-6), name


def test_weights_that_dropout_takes_away_are_missing_from_the_values(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sum is no longer one, by which the bias of the values is then multiplied."""
    own: Any = loud(load_encoder(encoders("bert"), LABELS["sequence"], {})).bert.encoder.layer[-1].attention.self
    monkeypatch.setattr(speed, "dropout", lambda weights, *_: weights * (torch.arange(9) % 3))
    hidden = torch.randn(3, 9, own.query.in_features)
    query, key, value = (
        layer(hidden).unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)
        for layer in (own.query, own.key, own.value)
    )
    weights = (query @ key.transpose(2, 3) * own.scaling).softmax(-1) * (torch.arange(9) % 3)
    expected = (weights @ value).transpose(1, 2).flatten(2)[:, :1]
    result = speed._attend_first(own, own.query(hidden[:, :1]), own.key, own.value, hidden, None)
    assert torch.allclose(result, expected, atol=1e-5)


def test_dropout_drops_scales_and_sends_the_gradient_back_the_same_way() -> None:
    torch.manual_seed(0)
    values = torch.ones(400, 501, requires_grad=True)
    result = speed.dropout(values, 0.3, training=True)
    dropped = result == 0
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert result.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.float().mean(0).std().item() < 0.05, "no column is favoured"
    result.sum().backward()
    assert torch.equal(values.grad, result.detach())
    torch.manual_seed(0)
    assert torch.equal(speed.dropout(values, 0.3, training=True), result)
    assert not torch.equal(speed.dropout(values, 0.3, training=True), result)


@pytest.mark.parametrize(("probability", "training"), [(0.5, False), (0.0, True), (1.0, True)])
def test_dropout_at_its_ends_is_that_of_torch(probability: float, training: bool) -> None:
    values = torch.randn(5, 7)
    assert torch.equal(
        speed.dropout(values, probability, training), nn.functional.dropout(values, probability, training)
    )


@pytest.mark.parametrize("kind", [None, torch.bool, torch.float32])
def test_attention_that_drops_out_computes_what_torch_does(kind: torch.dtype | None) -> None:
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    mask = None
    if kind is not None:
        seen = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6], dtype=torch.bool)[:, None, None, :]
        mask = seen if kind == torch.bool else torch.where(seen, 0.0, -1e9)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    module = nn.Module()
    result, _ = speed.attend(module, query, key, value, mask, dropout=1e-9)  # rounds to none
    assert torch.allclose(result, expected.transpose(1, 2), atol=1e-5)
    many = torch.stack([speed.attend(module, query, key, value, mask, dropout=0.2)[0] for _ in range(3000)])
    assert torch.allclose(many.mean(0), expected.transpose(1, 2), atol=0.1), "right on average"


def test_a_position_that_may_look_nowhere_spoils_no_other() -> None:
    """A padded one that a sliding window cuts off from all words, as in ModernBERT."""
    query, key, value = torch.randn(3, 1, 2, 4, 8)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 3, :] = mask[..., 3] = False
    result, _ = speed.attend(nn.Module(), query, key, value, mask, dropout=1e-9)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    assert result.isfinite().all()
    assert torch.allclose(result[:, :3], expected[:, :3], atol=1e-5)


def test_attention_that_looks_back_only_stays_so() -> None:
    """That of a decoder, for which transformers gives no mask where no row is padded."""
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    module = nn.Module()
    module.is_causal = True
    assert torch.allclose(speed.attend(module, query, key, value, None, dropout=1e-9)[0], expected, atol=1e-5)
    plain = speed.attend(module, query, key, value, None, dropout=1e-9, is_causal=False)[0]
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_an_encoder_that_cannot_be_tried_out_is_left_as_it_is(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_encoder(encoders("bert"), LABELS["sequence"], {})
    monkeypatch.setattr(speed, "tiny_batch", lambda _: (torch.full((2, 4), 10**6), torch.ones(2, 4)))
    speed.compute_first_token(network)
    assert not any("forward" in vars(layer) for _, layer in layers_of(network))
    assert network(**batch()).logits.shape == (3, 3)


@pytest.mark.parametrize(
    ("family", "own"), [("ConvBert", {"embedding_size": 32}), ("MegatronBert", {}), ("LayoutLM", {})]
)
def test_encoders_that_are_nearly_bert_compute_what_they_did(family: str, own: dict[str, int]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = getattr(transformers, f"{family}Config")(vocab_size=100, **sizes, **own)
    network = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    before = network(**batch()).logits
    speed.accelerate(network)
    assert torch.allclose(network(**batch()).logits, before, atol=1e-5)


def test_what_is_saved_does_not_tell(encoders: Encoders, tmp_path: Path) -> None:
    network = load_encoder(encoders("bert"), LABELS["sequence"], {})
    names = list(network.state_dict())
    speed.accelerate(network)
    network.save_pretrained(tmp_path)  # type: ignore[operator]
    assert list(network.state_dict()) == names
    assert speed.ATTENTION not in (tmp_path / "config.json").read_text()

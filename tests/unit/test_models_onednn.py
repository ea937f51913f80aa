"""Linear layers by oneDNN give what those of torch give."""

import pytest
import torch
from torch import nn

from thaw.models import onednn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def forms(shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Values of a shape: as they come, as a view of a larger tensor, and transposed in memory."""
    torch.manual_seed(len(shape))
    wide = torch.randn(*shape[:-1], 2 * shape[-1])
    return [torch.randn(shape), wide[..., : shape[-1]], torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24), (64, 1, 24), (1, 24), (24,)])
def test_results_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(24, 40, bias=bias)
    for values in forms(shape):
        values.requires_grad_()
        wanted = [values, *layer.parameters()]
        mine, theirs = onednn.LinearFunction.apply(values, layer.weight, layer.bias), layer(values)
        assert torch.allclose(mine, theirs, atol=1e-5)
        # A gradient that is not contiguous, as transposing for attention makes them.
        gradient = torch.randn(*shape[:-1], 80)[..., ::2]
        pairs = zip(
            torch.autograd.grad(mine, wanted, gradient), torch.autograd.grad(theirs, wanted, gradient), strict=True
        )
        assert all(torch.allclose(*pair, atol=1e-4) for pair in pairs)


@pytest.mark.parametrize("trains", ["weight", "bias"])
def test_what_is_frozen_gets_no_gradient(trains: str) -> None:
    layer = nn.Linear(24, 40)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name == trains)
    values = torch.randn(5, 24)
    onednn.LinearFunction.apply(values, layer.weight, layer.bias).square().sum().backward()
    own = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad()
    layer(values).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert (own[name] is None) == (name != trains)
        assert name != trains or torch.allclose(own[name], parameter.grad, atol=1e-4)


def test_a_network_is_changed_where_that_is_faster_and_only_for_large_products_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(onednn, "SMALL", 2**20)
    own = onednn.product
    monkeypatch.setattr(onednn, "product", lambda *given: calls.append(1) or own(*given))
    network, values = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), torch.randn(256, 64)
    before = network(values)
    monkeypatch.setattr(onednn, "preferred", lambda: False)
    onednn.use_onednn(network)
    assert torch.equal(network(values), before)
    assert not calls
    monkeypatch.setattr(onednn, "preferred", lambda: True)
    onednn.use_onednn(network)
    assert torch.allclose(network(values), before, atol=1e-5)
    assert len(calls) == 2
    assert torch.equal(network(values[:8]), nn.functional.linear(
        nn.functional.linear(values[:8], network[0].weight, network[0].bias).relu(), network[2].weight, network[2].bias
    ))  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(values).dtype == torch.bfloat16
    assert network.double()(values.double()).dtype == torch.float64
    assert len(calls) == 2


@pytest.mark.parametrize(("capability", "maker", "expected"), [
    ("AVX512", "AuthenticAMD", True), ("AVX512", "GenuineIntel", False), ("AVX2", "AuthenticAMD", False),
])  # fmt: skip
def test_the_processor_decides(capability: str, maker: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn.Path, "is_file", lambda _: True)
    monkeypatch.setattr(onednn.Path, "read_text", lambda *_, **__: f"vendor_id\t: {maker}\n")
    assert onednn.preferred.__wrapped__() is expected


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx2 amx_bf16 fma", True), ("avx512_bf16", True), ("avx512f", False)]
)
def test_the_processor_says_whether_it_multiplies_in_bfloat16(
    flags: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(onednn, "processor", lambda: f"flags\t: fpu {flags}\n")
    assert onednn.fast_in_bfloat16() is expected

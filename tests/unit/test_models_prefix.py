"""What is computed once is what would be computed in every step, and never that of another run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from test_models_speed import LABELS, loud
from transformers import LongformerConfig, LongformerForSequenceClassification

from thaw.cache import cache_folder, make_room
from thaw.data.ragged import pad_rows
from thaw.labels import LabelSet
from thaw.models.encoder import blocks, layers_of, load_encoder
from thaw.models.forward import reads_first_token
from thaw.models.freezing import frozen_depth, trainable
from thaw.models.prefix import FrozenPrefix, States, Unusable
from tiny_models import ARCHITECTURES

Encoders = Callable[[str], Path]
GIGABYTE = 10**9


class Rows:
    """A split of some rows of unequal length, which counts how often it is passed over."""

    def __init__(self, seed: int = 0) -> None:
        lengths = [9, 3, 5, 7, 2]
        self.ids = np.random.default_rng(seed).integers(6, 30, sum(lengths)).astype(np.int32)
        self.offsets = np.concatenate(([0], np.cumsum(lengths)))
        self.passes = 0

    def batch(self, rows: list[int]) -> dict[str, torch.Tensor]:
        ids, mask = pad_rows(self.ids, self.offsets, np.array(rows), 0)
        arrays = {"input_ids": ids, "attention_mask": mask, "rows": np.array(rows)}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def batches(self, _: Any) -> Iterator[dict[str, torch.Tensor]]:
        self.passes += 1
        yield self.batch([0, 3])
        yield self.batch([2, 1, 4])


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path))


def network_of(encoders: Encoders, architecture: str, labels: LabelSet = LABELS["sequence"]) -> Any:
    return loud(load_encoder(encoders(architecture), labels, {})).eval()


@pytest.mark.parametrize("task", ["sequence", "token"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_suffix_on_stored_states_gives_the_logits_of_the_whole(
    architecture: str, task: str, encoders: Encoders
) -> None:
    network, rows = network_of(encoders, architecture, LABELS[task]), Rows()
    for depth in range(1, len(blocks(network)) - 1):
        prefix = FrozenPrefix(network, depth, rows.batches, limit=GIGABYTE)
        states = prefix.states([rows])[0]
        for chosen in ([4, 0], [1, 2, 3]):
            batch = rows.batch(chosen)
            with torch.no_grad():
                logits = prefix(states, batch)
                whole = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            if task == "token":
                real = batch["attention_mask"].bool()
                logits, whole = logits[real], whole[real]
            assert torch.allclose(logits, whole, rtol=1e-4, atol=1e-5), depth


def test_an_encoder_that_fills_rows_up_is_not_reused() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = LongformerConfig(vocab_size=100, attention_window=16, max_position_embeddings=66, **sizes)
    network = LongformerForSequenceClassification(config)  # type: ignore[no-untyped-call]
    with pytest.raises(Unusable, match="more tokens than its input has"):
        FrozenPrefix(network, 1, Rows().batches, limit=GIGABYTE)


def test_layers_that_need_more_than_the_states_are_not_reused(encoders: Encoders) -> None:
    network, ran = network_of(encoders, "bert"), []

    def skip(_: Any, __: Any, output: Any) -> None:
        output.logits = output.logits + len(ran)
        ran.clear()

    layers_of(network)[0][1].attention.register_forward_hook(lambda *_: ran.append(1))
    network.register_forward_hook(skip)
    with pytest.raises(Unusable, match="the layers above layer 1 of this encoder do not run on their own"):
        FrozenPrefix(network, 1, Rows().batches, limit=GIGABYTE)


def test_a_probe_of_the_first_token_stores_one_vector_of_each_text(encoders: Encoders) -> None:
    for architecture, labels, stored in (("bert", "sequence", 5), ("bert", "token", 26), ("roberta", "sequence", 5)):
        network, rows = network_of(encoders, architecture, LABELS[labels]), Rows()
        states = FrozenPrefix(network, 3, rows.batches, limit=GIGABYTE).states([rows])[0]
        assert states.values.shape == (stored, network.config.hidden_size)


@pytest.mark.parametrize("depth", [2, 3], ids=["all tokens", "one vector"])
def test_rows_of_a_pool_are_computed_with_it(depth: int, encoders: Encoders) -> None:
    network, pool, part = network_of(encoders, "bert"), Rows(), Rows()
    chosen = [3, 1, 4]
    part.ids = np.concatenate([pool.ids[pool.offsets[i] : pool.offsets[i + 1]] for i in chosen])
    part.offsets = np.concatenate(([0], np.cumsum(np.diff(pool.offsets)[chosen])))
    shared = FrozenPrefix(network, depth, pool.batches, limit=GIGABYTE, pool=pool)
    for own in (part, pool):
        states = shared.states([own])[0]
    assert pool.passes == 1
    states = shared.states([part])[0]
    alone = FrozenPrefix(network, depth, lambda _: [part.batch([0, 1, 2])], limit=GIGABYTE).states([part])[0]
    for rows in ([0], [2, 1]):
        width = 1 if depth == 3 else 7
        assert torch.allclose(states.of(np.array(rows), width), alone.of(np.array(rows), width), rtol=1e-4, atol=1e-5)
    assert states.nbytes == alone.nbytes
    other = Rows(seed=1)
    assert len(FrozenPrefix(network, depth, other.batches, limit=GIGABYTE, pool=pool).states([other])[0].starts) == 5
    assert other.passes == 1, "what is not in the pool is computed apart"


def test_states_are_computed_once_and_anew_when_anything_changes(encoders: Encoders) -> None:
    def states(network: Any, rows: Rows, depth: int = 2, **options: Any) -> States:
        return FrozenPrefix(network, depth, rows.batches, limit=GIGABYTE, **options).states([rows])[0]

    network, rows = network_of(encoders, "bert"), Rows()
    first = states(network, rows)
    again = states(network, rows)
    assert rows.passes == 1
    assert np.array_equal(first.values, again.values)
    with torch.no_grad():
        network.bert.encoder.layer[2].output.dense.bias += 1
        network.classifier.weight += 1
    network.config.classifier_dropout = 0.3
    states(network, rows)
    assert rows.passes == 1, "what lies above the prefix has no part in it"
    with torch.no_grad():
        network.bert.encoder.layer[1].output.dense.bias[0] += 1e-3
    states(network, rows)
    assert rows.passes == 2, "a weight"
    states(network, rows, depth=1)
    assert rows.passes == 3, "the depth"
    states(network, rows, dtype="bfloat16")
    assert rows.passes == 4, "the type"
    states(network, rows, also=8)
    assert rows.passes == 5, "the batch size, say"
    other = Rows(seed=1)
    states(network, other)
    assert other.passes == 1, "the texts"


def test_bfloat16_takes_half_the_room_and_rounds(encoders: Encoders) -> None:
    network, rows = network_of(encoders, "distilbert"), Rows()
    full, half = (
        FrozenPrefix(network, 2, rows.batches, limit=GIGABYTE, dtype=dtype).states([rows])[0]
        for dtype in ("float32", "bfloat16")
    )
    assert half.values.nbytes * 2 == full.values.nbytes
    row = np.array([0])
    assert torch.allclose(half.of(row, 9).float(), full.of(row, 9), rtol=1e-2)


@pytest.mark.parametrize("depth", [1, 3], ids=["all tokens", "one vector"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_states_are_stored_in_the_precision_of_the_network(dtype: torch.dtype, depth: int, encoders: Encoders) -> None:
    network, rows = network_of(encoders, "distilbert").to(dtype), Rows()
    prefix = FrozenPrefix(network, depth, rows.batches, limit=GIGABYTE)
    states, batch = prefix.states([rows])[0], rows.batch([0])
    assert states.values.dtype.itemsize == dtype.itemsize
    with torch.no_grad():
        whole = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(prefix(states, batch), whole, rtol=1e-12 if dtype == torch.float64 else 1e-2)


def test_a_head_is_tried_out_on_the_device_of_its_network(encoders: Encoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values stand for those of a GPU: they mix with those of the CPU no better."""
    monkeypatch.setattr(torch, "allclose", lambda *_, **__: True)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: False)  # transformers asks whether a mask hides anything
    assert reads_first_token(network_of(encoders, "distilbert").to("meta"))


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.is_dir())


def test_what_was_unused_for_longest_makes_room(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "older", "oldest")):
        folder = cache_folder() / "prefix" / name
        folder.mkdir(parents=True)
        (folder / "states.npy").write_bytes(bytes(100))
        os.utime(folder, (1e9 - age, 1e9 - age))
    assert make_room("prefix", 100, limit=400, keep={"oldest"})
    assert folders(tmp_path / "prefix") == ["new", "old", "oldest"]
    assert not make_room("prefix", 500, limit=400)
    assert folders(tmp_path / "prefix") == ["new", "old", "oldest"], "nothing is lost in vain"


def test_what_is_being_made_or_opened_does_not_make_room(tmp_path: Path) -> None:
    for name in (".made.x7", ".dead.y8", "opened"):
        folder = cache_folder() / "prefix" / name
        folder.mkdir(parents=True)
        (folder / "states.npy").write_bytes(bytes(100))
    with FileLock(tmp_path / "prefix/made.lock"), FileLock(tmp_path / "prefix/opened.lock"):
        assert not make_room("prefix", 200, limit=300)
        assert folders(tmp_path / "prefix") == [".made.x7", "opened"], "what a kill has left goes"
        assert make_room("prefix", 200, limit=300, keep={"made"}), "this is what the room is for"
    assert make_room("prefix", 300, limit=300)
    assert not folders(tmp_path / "prefix")


def test_a_run_does_not_make_room_out_of_its_own_states(encoders: Encoders) -> None:
    network, train, other = network_of(encoders, "distilbert"), Rows(), Rows(seed=1)
    size = FrozenPrefix(network, 1, train.batches, limit=GIGABYTE).states([train])[0].values.nbytes
    tight = FrozenPrefix(network, 1, other.batches, limit=int(1.5 * size))
    with pytest.raises(Unusable, match="do not fit"):
        tight.states([train, other])
    tight.states([train])
    with pytest.raises(Unusable, match="do not fit"):
        tight.states([other])
    FrozenPrefix(network, 1, other.batches, limit=int(1.5 * size)).states([other])[0]
    FrozenPrefix(network, 1, train.batches, limit=GIGABYTE).states([train])[0]
    assert train.passes == 2, "another run may"


def test_states_that_do_not_fit_are_refused(encoders: Encoders) -> None:
    network, rows = network_of(encoders, "distilbert"), Rows()
    with pytest.raises(Unusable, match="do not fit"):
        FrozenPrefix(network, 1, rows.batches, limit=100).states([rows])[0]
    assert rows.passes == 0


def test_a_pass_that_fails_leaves_nothing_behind(encoders: Encoders) -> None:
    network, rows = network_of(encoders, "distilbert"), Rows()

    def broken(_: Any) -> Iterator[dict[str, torch.Tensor]]:
        yield rows.batch([0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FrozenPrefix(network, 1, broken, limit=GIGABYTE).states([rows])[0]
    assert [path.suffix for path in (cache_folder() / "prefix").iterdir()] == [".lock"]
    FrozenPrefix(network, 1, rows.batches, limit=GIGABYTE).states([rows])[0]
    assert rows.passes == 1


def test_depth_counts_frozen_layers_from_the_bottom(encoders: Encoders) -> None:
    parts = blocks(network_of(encoders, "bert"))
    depths = {
        **{"none": 0, "head": 3, "embeddings": 0},
        **{"first_n": 2, "all_but_last_n": 1, "bitfit": 1},
    }
    for name, depth in depths.items():
        assert frozen_depth(parts, trainable(parts, {"name": name, "n": 2})) == depth, name
    assert frozen_depth(parts, trainable(parts, {"name": "bitfit"})) == 0
    gradual = {"name": "gradual", "every": 1}
    assert [frozen_depth(parts, trainable(parts, gradual, epoch)) for epoch in range(6)] == [3, 2, 1, 0, 0, 0]

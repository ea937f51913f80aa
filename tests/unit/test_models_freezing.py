"""What each strategy trains, on a tiny network of every architecture; the names of its parts are written out here."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from torch import nn

from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.models import freezing
from thaw.models.encoder import blocks, layers_of, load_encoder
from thaw.models.freezing import frozen_depth, trainable
from thaw.models.module import EncoderModule
from tiny_models import ARCHITECTURES

Encoders = Callable[[str], Path]
LABELS = {
    "sequence": LabelSet("sequence", ("joy", "anger", "fear"), (5, 3, 2), rows=10),
    "token": LabelSet("token", ("O", "B-PER", "I-PER"), (8, 1, 1), rows=10),
}


@dataclass(frozen=True)
class Anatomy:
    """Where a network keeps its parts: prefixes of the embeddings and of layer ``{}``, modules of layer and head."""

    embeddings: tuple[str, ...]
    layer: str
    modules: tuple[str, ...]
    head: tuple[str, ...]
    token_head: tuple[str, ...] = ("classifier",)
    without_bias: tuple[str, ...] = ()
    layers: int = 3


BERT = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
ROBERTA = Anatomy(
    ("roberta.embeddings.",), "roberta.encoder.layer.{}.", BERT, ("classifier.dense", "classifier.out_proj")
)
MODERNBERT = ("attn_norm", "attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo")
ANATOMY = {
    "bert": Anatomy(("bert.embeddings.",), "bert.encoder.layer.{}.", BERT, ("bert.pooler.dense", "classifier")),
    "distilbert": Anatomy(
        ("distilbert.embeddings.",),
        "distilbert.transformer.layer.{}.",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1",
         "ffn.lin2", "output_layer_norm"),
        ("pre_classifier", "classifier"),
    ),
    "roberta": ROBERTA,
    "xlm_roberta": ROBERTA,
    "electra": Anatomy(
        ("electra.embeddings.", "electra.embeddings_project."),
        "electra.encoder.layer.{}.",
        BERT,
        ("classifier.dense", "classifier.out_proj"),
    ),
    "albert": Anatomy(
        ("albert.embeddings.", "albert.encoder.embedding_hidden_mapping_in."),
        "albert.encoder.albert_layer_groups.{}.albert_layers.0.",
        ("attention.query", "attention.key", "attention.value", "attention.dense", "attention.LayerNorm", "ffn",
         "ffn_output", "full_layer_layer_norm"),
        ("albert.pooler", "classifier"),
        layers=1,  # one layer, which runs three times
    ),
    "deberta_v3": Anatomy(
        ("deberta.embeddings.", "deberta.encoder.rel_embeddings.", "deberta.encoder.LayerNorm."),
        "deberta.encoder.layer.{}.",
        tuple(re.sub("(query|key|value)$", r"\1_proj", name) for name in BERT),
        ("pooler.dense", "classifier"),
    ),
    "mpnet": Anatomy(
        ("mpnet.embeddings.", "mpnet.encoder.relative_attention_bias."),
        "mpnet.encoder.layer.{}.",
        ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", "attention.LayerNorm",
         "intermediate.dense", "output.dense", "output.LayerNorm"),
        ("classifier.dense", "classifier.out_proj"),
    ),
    "modernbert": Anatomy(
        ("model.embeddings.",),
        "model.layers.{}.",
        MODERNBERT,
        ("model.final_norm", "head.dense", "head.norm", "classifier"),
        ("model.final_norm", "head.dense", "head.norm", "classifier"),
        without_bias=(*MODERNBERT, "model.final_norm", "head.dense", "head.norm"),
    ),
}  # fmt: skip
ANATOMY["bert_cased"] = ANATOMY["bert"]
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_task = pytest.mark.parametrize("task", LABELS)


def part(architecture: str, name: str | int, task: str = "sequence") -> set[str]:
    """The parameters of the head, or of a layer counted from 1, as written out above."""
    anatomy = ANATOMY[architecture]
    if name == "head":
        prefix, modules = "", anatomy.head if task == "sequence" else anatomy.token_head
    else:
        prefix, modules = anatomy.layer.format(int(name) - 1), anatomy.modules
    biased = [module for module in modules if module not in anatomy.without_bias]
    # ModernBERT's first layer gets its norm from the embeddings.
    absent = {"model.layers.0.attn_norm.weight"}
    return {f"{prefix}{module}.weight" for module in modules} - absent | {f"{prefix}{module}.bias" for module in biased}


def embeddings(architecture: str, network: nn.Module) -> set[str]:
    """The parameters under the embeddings' prefixes."""
    return {name for name, _ in network.named_parameters() if name.startswith(ANATOMY[architecture].embeddings)}


def load(encoders: Encoders, architecture: str, task: str = "sequence") -> Any:
    return load_encoder(encoders(architecture), LABELS[task], {})


def module_of(folder: Path, freeze: dict[str, Any], task: str = "sequence", **optimizer: Any) -> EncoderModule:
    torch.manual_seed(0)
    adamw = {"_target_": "torch.optim.AdamW"}
    groups = {
        "model": {},
        "freeze": freeze,
        "loss": {"class_weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0},
        "metrics": {},
        "optimizer": {"class": adamw, "lr": 1e-2, "weight_decay": 0.1, "schedule": "constant", **optimizer},
        "strict": False,
    }
    return EncoderModule(folder, LABELS[task], groups)


@pytest.mark.parametrize(
    ("freeze", "epochs", "whole"),
    [
        ({"name": "gradual", "every": 1}, 1, False),
        ({"name": "gradual", "every": 1}, 4, False),
        ({"name": "gradual", "every": 1}, 5, True),
        ({"name": "lp_ft", "probe_epochs": 2}, 2, False),
        ({"name": "lp_ft", "probe_epochs": 2}, 3, True),
    ],
)
def test_stages_that_a_run_does_not_reach_do_not_count(
    freeze: dict[str, Any], epochs: int, whole: bool, encoders: Encoders
) -> None:
    config = module_of(encoders("bert"), freeze).config
    module = EncoderModule(encoders("bert"), LABELS["sequence"], config, epochs)
    assert len(layers_of(module.network)) == 3
    module.thaw_for(epochs - 1)
    assert training(module.network) == module.ever_trained
    assert whole == (len(module.ever_trained) == len(list(module.named_parameters())))
    assert sum(row["trainable"] for row in module.table) == sum(
        parameter.numel() for parameter in module.parameters() if parameter.requires_grad
    )


def training(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@every_task
@every_architecture
def test_every_parameter_is_in_exactly_one_block(architecture: str, task: str, encoders: Encoders) -> None:
    network, layers = load(encoders, architecture, task), range(1, ANATOMY[architecture].layers + 1)
    found = blocks(network)
    counted = Counter(name for block in found for name, _ in block.parameters())
    assert counted == Counter(name for name, _ in network.named_parameters())
    assert [block.name for block in found] == ["embeddings", *(f"layer {i}" for i in layers), "head"]
    own = {block.name: {name for name, _ in block.parameters()} for block in found}
    assert own["embeddings"] == embeddings(architecture, network)
    for i in layers:
        assert own[f"layer {i}"] == part(architecture, i)
    assert own["head"] == part(architecture, "head", task)


@every_task
@every_architecture
def test_the_last_layer_and_the_head_train(architecture: str, task: str, encoders: Encoders) -> None:
    module = module_of(encoders(architecture), {"name": "all_but_last_n", "n": 1}, task)
    last = part(architecture, ANATOMY[architecture].layers)
    assert training(module.network) == last | part(architecture, "head", task)


STRATEGIES: list[tuple[dict[str, Any], int | None, list[str | int]]] = [
    ({"name": "none"}, None, ["embeddings", 1, 2, 3, "head"]),
    ({"name": "embeddings"}, None, [1, 2, 3, "head"]),
    ({"name": "head"}, None, ["head"]),
    ({"name": "first_n", "n": 0}, None, [1, 2, 3, "head"]),
    ({"name": "first_n", "n": 2}, None, [3, "head"]),
    ({"name": "first_n", "n": 3}, None, ["head"]),
    ({"name": "all_but_last_n", "n": 0}, None, ["head"]),
    ({"name": "all_but_last_n", "n": 2}, None, [2, 3, "head"]),
    ({"name": "all_but_last_n", "n": 3}, None, [1, 2, 3, "head"]),
    ({"name": "gradual", "every": 1}, 0, ["head"]),
    ({"name": "gradual", "every": 1}, 1, [3, "head"]),
    ({"name": "gradual", "every": 1}, 4, ["embeddings", 1, 2, 3, "head"]),
    ({"name": "gradual", "every": 1}, 9, ["embeddings", 1, 2, 3, "head"]),
    ({"name": "gradual", "every": 2}, 1, ["head"]),
    ({"name": "gradual", "every": 2}, 5, [2, 3, "head"]),
    ({"name": "gradual", "every": 2}, None, ["embeddings", 1, 2, 3, "head"]),
    ({"name": "lp_ft", "probe_epochs": 2}, 1, ["head"]),
    ({"name": "lp_ft", "probe_epochs": 2}, 2, ["embeddings", 1, 2, 3, "head"]),
    ({"name": "lp_ft", "probe_epochs": 2}, None, ["embeddings", 1, 2, 3, "head"]),
]  # fmt: skip


@pytest.mark.parametrize(("freeze", "epoch", "parts"), STRATEGIES)
def test_what_a_strategy_trains(
    freeze: dict[str, Any], epoch: int | None, parts: list[str | int], encoders: Encoders
) -> None:
    """The epoch None asks for what trains at some time in the run."""
    network = load(encoders, "deberta_v3")
    expected = [embeddings("deberta_v3", network) if one == "embeddings" else part("deberta_v3", one) for one in parts]
    assert trainable(blocks(network), freeze, epoch) == set().union(*expected)


def test_a_pattern_picks_parameters_by_their_names(encoders: Encoders) -> None:
    network = load(encoders, "bert")
    head = part("bert", "head")
    third = trainable(blocks(network), {"name": "pattern", "pattern": r"layer\.2\."})
    assert third == part("bert", 3) | head
    assert frozen_depth(blocks(network), third) == 2
    queries = trainable(blocks(network), {"name": "pattern", "pattern": "query|classifier"})
    kinds = ("weight", "bias")
    assert queries - head == {f"bert.encoder.layer.{i}.attention.self.query.{kind}" for i in range(3) for kind in kinds}
    with pytest.raises(UserError, match=r"freeze\.pattern=kwery matches no .* Their names are like bert\.embeddings\."):
        trainable(blocks(network), {"name": "pattern", "pattern": "kwery"})


@every_architecture
def test_bitfit_trains_biases_and_the_head(architecture: str, encoders: Encoders) -> None:
    network = load(encoders, architecture)
    if architecture == "modernbert":
        with pytest.raises(UserError, match="has none"):
            trainable(blocks(network), {"name": "bitfit"})
        return
    body = embeddings(architecture, network).union(
        *(part(architecture, i) for i in range(1, ANATOMY[architecture].layers + 1))
    )
    biases = {name for name in body if name.endswith(".bias")}
    assert trainable(blocks(network), {"name": "bitfit"}) == biases | part(architecture, "head")


@pytest.mark.parametrize(
    ("strategy", "n", "least"),
    [("first_n", 4, 0), ("all_but_last_n", 4, 0), ("first_n", None, 0), ("all_but_last_n", None, 0)]
    + [(strategy, n, 1) for strategy in ("bitfit", "lora", "dora", "ia3") for n in (0, 4)],
)
def test_a_number_of_layers_that_cannot_be_is_an_error_that_says_how_many_there_are(
    strategy: str, n: int | None, least: int, encoders: Encoders
) -> None:
    head = "; freeze=head trains none" if n == 0 else ""
    said = f"freeze.n={'null' if n is None else n}, but this encoder has 3 layers with parameters of their own. Give a"
    with pytest.raises(UserError, match=re.escape(f"{said} whole number from {least} to 3{head}.")):
        module_of(encoders("bert"), {**ADAPTERS.get(strategy, {"name": strategy}), "n": n})


@pytest.mark.parametrize("strategy", ["bitfit", "lora", "dora", "ia3"])
@pytest.mark.parametrize("n", [1, 2])
@every_architecture
def test_only_the_last_layers_train_if_so_many_are_wanted(
    architecture: str, n: int, strategy: str, encoders: Encoders
) -> None:
    anatomy = ANATOMY[architecture]
    if n > anatomy.layers or (strategy, architecture) == ("bitfit", "modernbert"):
        return
    freeze = ADAPTERS.get(strategy, {"name": strategy})
    everywhere = training(module_of(encoders(architecture), freeze).network)
    module = module_of(encoders(architecture), {**freeze, "n": n})
    below = tuple(anatomy.layer.format(i) for i in range(anatomy.layers - n)) + anatomy.embeddings
    assert training(module.network) == {name for name in everywhere if not name.startswith(below)}
    assert frozen_depth(module.parts, module.ever_trained) == anatomy.layers - n


def test_albert_counts_its_shared_layer_once(encoders: Encoders) -> None:
    with pytest.raises(UserError, match="has 1 layer with parameters of their own"):
        trainable(blocks(load(encoders, "albert")), {"name": "all_but_last_n", "n": 2})


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ({"name": "thaw"}, "freeze.name=thaw is not known"),
        ({"name": "lora", "rank": 0, "alpha": 1, "dropout": 0.0, "target_modules": None}, "freeze=lora"),
        ({"name": "lora", "rank": 2, "alpha": 1, "dropout": 0.0, "target_modules": ["q"]}, "Known: dense, key, query"),
        (
            {"name": "lora", "rank": 2, "alpha": 1, "dropout": 0.0, "target_modules": ["uery"]},
            "no linear layer has such",
        ),
        (
            {"name": "lora", "rank": 2, "alpha": 1, "dropout": 0.0, "target_modules": ["quer."]},
            "no linear layer has such",
        ),
    ],
)
def test_wrong_settings_are_user_errors(freeze: dict[str, Any], message: str, encoders: Encoders) -> None:
    with pytest.raises(UserError, match=message):
        module_of(encoders("bert"), freeze)


@pytest.mark.parametrize("names", ["KEY_VALUE", "FEED_FORWARD_OUT"])
def test_ia3_needs_matrices_whose_names_are_known(
    names: str, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezing, names, re.compile("none of these"))
    with pytest.raises(UserError, match=r"freeze=ia3: the names of .* are not known\. Use freeze=lora"):
        module_of(encoders("bert"), {"name": "ia3"})


ADAPTERS = {
    "lora": {"name": "lora", "rank": 2, "alpha": 4, "dropout": 0.1, "target_modules": None},
    "dora": {"name": "dora", "rank": 2, "alpha": 4, "dropout": 0.1, "target_modules": None},
    "ia3": {"name": "ia3"},
}


@pytest.mark.parametrize("strategy", ADAPTERS)
@every_architecture
def test_adapters_train_with_the_head_and_merge(architecture: str, strategy: str, encoders: Encoders) -> None:
    module = module_of(encoders(architecture), ADAPTERS[strategy])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trains = training(module.network)
    adapters = {name for name in trains if "lora_" in name or "ia3_" in name}
    heads = {name.replace(".modules_to_save.default", "") for name in trains - adapters}
    layers = [ANATOMY[architecture].layer.format(i) for i in range(ANATOMY[architecture].layers)]
    assert heads == part(architecture, "head")
    saved = get_peft_model_state_dict(module.adapters[0])
    assert {f"base_model.model.{name}" for name in part(architecture, "head")} <= set(saved)
    if strategy != "ia3":
        own = module.adapters[0].peft_config["default"]
        assert (own.r, own.lora_alpha, own.lora_dropout, own.use_dora) == (2, 4, 0.1, strategy == "dora")
    for layer in layers:
        assert any(name.startswith(layer) for name in adapters)
    assert all(name.startswith(tuple(layers)) for name in adapters)

    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == {f"network.{name}" for name in trains}

    ids, mask = torch.arange(5, 23).reshape(2, 9), torch.ones(2, 9, dtype=torch.long)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.02)
    module.train()
    for _ in range(2):
        optimizer.zero_grad()
        module.loss(module(ids, mask), torch.tensor([0, 1])).backward()
        optimizer.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"network.{name}" for name in trains}

    module.eval()
    with torch.no_grad():
        adapted = module(ids, mask)
        merged = module.adapters[0].merge_and_unload()
        assert not [name for name, _ in merged.named_modules() if re.search("lora|ia3|modules_to_save", name)]
        torch.testing.assert_close(merged(input_ids=ids, attention_mask=mask).logits, adapted, atol=1e-4, rtol=1e-4)


def test_target_modules_are_those_of_the_layers_only(encoders: Encoders) -> None:
    """RoBERTa's head has a matrix named dense as its layers do; it trains as a whole, without an adapter."""
    trains = training(module_of(encoders("roberta"), {**ADAPTERS["lora"], "target_modules": ["dense"]}).network)
    adapted = {name.split(".lora_")[0] for name in trains if "lora_" in name}
    names = ("attention.output.dense", "intermediate.dense", "output.dense")
    assert adapted == {f"roberta.encoder.layer.{i}.{name}" for i in range(3) for name in names}


def test_an_encoder_built_otherwise_is_refused() -> None:
    """XLNet keeps a parameter that is in none of its modules, which no strategy could name."""
    from transformers import AutoModelForSequenceClassification, XLNetConfig

    config = XLNetConfig(vocab_size=20, d_model=8, n_layer=2, n_head=2, d_inner=8)
    with pytest.raises(UserError, match="does not support this encoder"):
        blocks(AutoModelForSequenceClassification.from_config(config))

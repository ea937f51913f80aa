"""Loading an encoder of any architecture, and the settings of the group ``model``."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from thaw.data.encoding import encode_words
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.models.encoder import length_limit, load_encoder, load_tokenizer, resolve_length
from thaw.models.head import taken_over
from tiny_models import ARCHITECTURES

Encoders = Callable[[str], Path]
LABELS = {
    "sequence": LabelSet("sequence", ("joy", "anger", "fear"), (5, 3, 2), rows=10),
    "multi_label": LabelSet("multi_label", ("joy", "anger", "fear"), (5, 3, 2), rows=10),
    "token": LabelSet("token", ("O", "B-PER", "I-PER"), (8, 1, 1), rows=10),
}
WITHOUT_SDPA = ("deberta_v3", "mpnet")
WITHOUT_CHECKPOINTING = ("albert", "mpnet")
IDS = torch.arange(5, 23).reshape(2, 9)
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_task = pytest.mark.parametrize("task", LABELS)


def load(folder: Path, task: str = "sequence", **model: Any) -> Any:
    torch.manual_seed(1)  # the tiny encoders are made with 0
    return load_encoder(folder, LABELS[task], model)


def logits(network: nn.Module) -> Tensor:
    values: Tensor = network(input_ids=IDS, attention_mask=MASK).logits
    return values


def body(network: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = getattr(network, network.base_model_prefix).state_dict()
    return state


@every_task
@every_architecture
def test_the_pretrained_body_gets_a_head_with_the_label_names(architecture: str, task: str, encoders: Encoders) -> None:
    from transformers import AutoModel

    network = load(encoders(architecture), task)
    assert network.config.id2label == dict(enumerate(LABELS[task].names))
    assert network.config.label2id == {name: i for i, name in enumerate(LABELS[task].names)}
    problem = {"sequence": "single_label_classification", "multi_label": "multi_label_classification", "token": None}
    assert network.config.problem_type == problem[task]
    assert logits(network).shape == ((2, 9, 3) if task == "token" else (2, 3))
    saved = AutoModel.from_pretrained(encoders(architecture)).state_dict()
    for name, value in body(network).items():
        assert value.dtype == torch.float32
        if not name.startswith("pooler."):
            torch.testing.assert_close(value, saved[name], rtol=0, atol=0)


def test_random_init_starts_without_the_pretrained_weights(encoders: Encoders) -> None:
    pretrained, fresh = body(load(encoders("bert"))), body(load(encoders("bert"), random_init=True))
    same = [name for name, value in fresh.items() if value.ndim >= 2 and torch.equal(value, pretrained[name])]
    assert same == []


@every_task
@every_architecture
def test_dropout_is_set_everywhere_and_in_effect(architecture: str, task: str, encoders: Encoders) -> None:
    network = load(encoders(architecture), task, dropout=0.37).train()
    rates = [module.p for module in network.modules() if "Dropout" in type(module).__name__]
    # ModernBERT and the attention of DistilBERT keep rates outside of modules.
    rates += [value for name, value in vars(network.config).items() if "dropout" in name and value is not None]
    assert set(rates) == {0.37}
    assert not torch.equal(logits(network), logits(network))
    without = load(encoders(architecture), task, dropout=0.0).train()
    torch.testing.assert_close(logits(without), logits(without), rtol=0, atol=0)


@pytest.mark.parametrize("task", ["sequence", "token"])
@every_architecture
def test_attention_implementations_agree(architecture: str, task: str, encoders: Encoders) -> None:
    if architecture in WITHOUT_SDPA:
        with pytest.raises(UserError, match=r"model\.attention"):
            load(encoders(architecture), task, attention="sdpa")
        return
    eager, sdpa = (load(encoders(architecture), task, attention=name) for name in ("eager", "sdpa"))
    kept = MASK.bool() if task == "token" else slice(None)
    torch.testing.assert_close(logits(eager)[kept], logits(sdpa)[kept], rtol=0, atol=1e-6)


@every_architecture
def test_gradient_checkpointing_gives_the_same_gradients(architecture: str, encoders: Encoders) -> None:
    if architecture in WITHOUT_CHECKPOINTING:
        with pytest.raises(UserError, match="has no gradient checkpointing"):
            load(encoders(architecture), gradient_checkpointing=True)
        return
    plain, sparing = (load(encoders(architecture), dropout=0.0, gradient_checkpointing=on) for on in (False, True))
    assert sparing.is_activation_checkpointing
    for network in (plain, sparing):
        logits(network.train()).square().sum().backward()
    gradients = [{name: p.grad for name, p in network.named_parameters()} for network in (plain, sparing)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


def test_a_fine_tuned_checkpoint_starts_a_task_with_other_labels(encoders: Encoders, tmp_path: Path) -> None:
    tuned = load(encoders("roberta"), random_init=True)
    tuned.save_pretrained(tmp_path)
    labels = LabelSet("sequence", tuple("abcde"), (1,) * 5, rows=5)
    network: Any = load_encoder(tmp_path, labels, {})
    assert logits(network).shape == (2, 5)
    torch.testing.assert_close(body(network), body(tuned), rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["missing", "resized"])
def test_a_checkpoint_without_all_of_its_encoder_is_refused(damage: str, encoders: Encoders, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(encoders("bert"), tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    weights[name] = weights[name][:, :-1].contiguous()
    if damage == "missing":
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"1 weights of the encoder are missing .*, such as bert.{name}"):
        load(folder)
    load(folder, random_init=True)


@pytest.mark.parametrize("allowed", [False, True])
def test_code_that_comes_with_a_model_runs_only_when_allowed(
    allowed: bool, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", sys.path.copy())
    folder = shutil.copytree(encoders("bert"), tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    code = "from transformers import BertForSequenceClassification as Bert\n\n\nclass OwnModel(Bert): ...\n"
    (folder / "modeling_own.py").write_text(code)
    network = load(folder, trust_remote_code=allowed)
    assert type(network).__name__ == ("OwnModel" if allowed else "BertForSequenceClassification")


@pytest.mark.parametrize("content", ["{", "{}", '{"model_type": "no such model"}'])
def test_an_unreadable_config_is_a_user_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    for reads in (length_limit, load):
        with pytest.raises(UserError, match="its config cannot be read"):
            reads(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_a_user_error(file: str, encoders: Encoders, tmp_path: Path) -> None:
    folder = shutil.copytree(encoders("bert"), tmp_path / "encoder")
    (folder / "model.safetensors").rename(folder / file).write_bytes(b"an interrupted download")
    with pytest.raises(UserError, match="cannot be loaded for a sequence task"):
        load(folder)


def test_a_broken_tokenizer_is_a_user_error(encoders: Encoders, tmp_path: Path) -> None:
    folder = shutil.copytree(encoders("bert"), tmp_path / "encoder")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="the tokenizer cannot be loaded"):
        load_tokenizer(folder, "sequence")


@pytest.mark.parametrize("stated", [True, False], ids=["tokenizer", "config"])
@every_architecture
def test_the_length_limit_is_what_the_network_takes(
    architecture: str, stated: bool, encoders: Encoders, tmp_path: Path
) -> None:
    """As the tokenizer states it, and as it follows from the config where the tokenizer states nothing."""
    folder = shutil.copytree(encoders(architecture), tmp_path / "encoder")
    if not stated:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["model_max_length"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert length_limit(folder) == 64
    ids = torch.full((1, 64), 6)
    load(folder).eval()(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_an_encoder_without_a_limit_takes_512_tokens(tmp_path: Path) -> None:
    transformers.XLNetConfig().save_pretrained(tmp_path)
    limit = length_limit(tmp_path)
    assert (limit, resolve_length(128, limit)) == (512, 128)


def test_max_length_is_checked_against_the_limit() -> None:
    assert resolve_length(None, 64) == 64
    assert resolve_length(3, 64) == 3
    for wrong in (2, 65):
        with pytest.raises(UserError, match=rf"data.max_length={wrong}, but this encoder takes 3 to 64 tokens"):
            resolve_length(wrong, 64)


@every_architecture
def test_words_that_are_given_apart_stay_apart(architecture: str, encoders: Encoders, tmp_path: Path) -> None:
    """Also after saving and loading the tokenizer, as a run folder does."""
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(encoders(architecture), "token")
    tokenizer.save_pretrained(tmp_path)
    sentence = ["Maria", "came", "home", ",", "to", "Oslo", "."]
    ids, _, words = encode_words([sentence], tokenizer)
    assert [word for word in dict.fromkeys(words.tolist()) if word >= 0] == list(range(7))
    again = encode_words([sentence], AutoTokenizer.from_pretrained(tmp_path))
    assert again[0].tolist() == ids.tolist()
    assert again[2].tolist() == words.tolist()


@every_task
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "modernbert"])
def test_labels_keep_the_head_of_an_encoder_by_name(
    architecture: str, task: str, encoders: Encoders, tmp_path: Path
) -> None:
    """In another order, with others added, or however they are written; those it does not know start anew."""
    load(encoders(architecture), task).save_pretrained(tmp_path)
    last = {"bert": "classifier", "roberta": "classifier.out_proj" if task != "token" else "classifier"}
    layer = last.get(architecture, "classifier")
    before = load(tmp_path, task).get_submodule(layer)
    first, second, third = LABELS[task].names
    for names in ((third, first, second), (third, "new", first.upper(), second), (first, "new", third)):
        labels = LabelSet(LABELS[task].task, names, (1,) * len(names), rows=10)
        after = load_encoder(tmp_path, labels, {}).get_submodule(layer)
        for row, name in enumerate(names):
            if name == "new":
                assert not any(torch.allclose(after.weight[row], old) for old in before.weight)
                assert after.bias[row] == 0
            else:
                known = LABELS[task].names.index(name if name in LABELS[task].names else name.lower())
                assert torch.equal(after.weight[row], before.weight[known])
                assert torch.equal(after.bias[row], before.bias[known])


def test_labels_that_differ_only_in_case_keep_their_own_heads(encoders: Encoders, tmp_path: Path) -> None:
    labels = LabelSet("sequence", ("US", "us", "I am"), (1, 1, 1), rows=3)
    network: Any = load_encoder(encoders("bert"), labels, {})
    network.save_pretrained(tmp_path)
    assert torch.equal(load_encoder(tmp_path, labels, {}).classifier.weight, network.classifier.weight)
    assert taken_over(labels.names, ["us", "Us", "IAM", "US"]) == [1, None, 2, 0]


def test_labels_without_names_keep_the_head_by_position(encoders: Encoders, tmp_path: Path) -> None:
    network = load(encoders("bert"))
    network.config.id2label = {i: f"LABEL_{i}" for i in range(3)}
    network.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path).classifier.weight, network.classifier.weight)


def test_a_head_of_other_labels_is_new(encoders: Encoders, tmp_path: Path) -> None:
    network = load(encoders("bert"))
    network.save_pretrained(tmp_path)
    after = load_encoder(tmp_path, LabelSet("sequence", ("x", "y", "z"), (1, 1, 1), rows=3), {})
    assert not torch.isclose(after.classifier.weight, network.classifier.weight).any()

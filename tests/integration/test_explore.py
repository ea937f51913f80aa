"""Looking at data before training: the real script on the samples, and on texts that would break a careless page."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_run_page import page_of

from conftest import ROOT, Run, configured
from thaw.data.module import TextDataModule
from thaw.errors import UserError
from thaw.exploration.explore import explore
from thaw.exploration.rows import AllRows

NASTY = '<script>alert("joy")</script> \u202eevil\u202c [red]x[/red] {{ 7 * 7 }} 🎉 <img src=x onerror=alert(1)>'


def only_page(folder: Path) -> Path:
    (path,) = folder.glob("outputs/explore/*/*/*/data.html")
    return path


def explored(path: Path, *overrides: str) -> dict[str, object]:
    explore(configured(f"output={path}", *overrides, verb="explore"), overrides)
    found: dict[str, object] = json.loads((path / "data.json").read_text())
    return found


def check_page(path: Path) -> str:
    """It needs nothing but itself; gives its text."""
    page = page_of(path)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    for _, given in page.tags:
        assert not [name for name in given if name.startswith("on")]
        assert all((given.get(name) or "#").startswith(("#", "data:")) for name in ("src", "href", "xlink:href"))
    return page.text


def test_the_script_explores_the_sample(script: Run, tmp_path: Path) -> None:
    done = script("explore.py", "data.max_length=20")
    path = only_page(tmp_path)
    assert str(path.relative_to(tmp_path)) in done.stdout
    assert "python train.py data.max_length=20" in done.stdout
    result = json.loads(path.with_name("data.json").read_text())
    text = check_page(path)
    train = result["data"]["splits"]["train"]
    for label, count in train["labels"].items():
        assert f"{label}{count:,}" in text.replace("\n", "").replace(" ", "")
    curve = dict(zip(result["truncation"]["max_length"], result["truncation"]["texts"], strict=True))
    rows = sum(split["rows"] for split in result["data"]["splits"].values())
    truncated = sum(split["rows"] * split["truncated"] for split in result["data"]["splits"].values())
    assert curve[20] == pytest.approx(truncated / rows, abs=1e-6)
    assert sum(own["rows"] for own in result["lengths"]["words"].values()) == train["rows"]
    assert all(len(own) == 3 for own in result["examples"].values())
    assert not result["data"]["skipped_rows"]


def test_one_text_is_split_without_reading_data(script: Run, tmp_path: Path) -> None:
    text = "I love [b]naïve[/b] cafés, it's 100% = {good} 🎉"
    done = script("explore.py", f"text={text}", "data.max_length=8", "data.path=nowhere")
    assert "[CLS]" in done.stdout
    assert "cut off at max_length=8" in done.stdout
    assert "[UNK]" in done.stdout
    assert not list(tmp_path.iterdir()), "no folder is made for it"


@pytest.mark.parametrize("extra", [[], ["data.subword_labels=all", "data.score_subwords=true"]])
def test_entities_of_the_sample(extra: list[str], tmp_path: Path) -> None:
    result = explored(tmp_path, "data=conll2003_sample", *extra)
    text = check_page(tmp_path / "data.html")
    assert set(result["surfaces"]["types"]) == {"LOC", "MISC", "ORG", "PER"}
    lines = (ROOT / "samples/conll2003/train.txt").read_text(encoding="utf-8").splitlines()
    for kind, own in result["surfaces"]["types"].items():
        assert own["count"] == sum(line.endswith(f"B-{kind}") for line in lines) == sum(own["lengths"])
        assert own["surfaces"][0][0] in text
    assert set(result["lengths"]["words"]) == {"train", "validation", "test"}


def test_duplicates_and_leaks_are_told_with_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"the {i}th text about something else number {i * i} and nothing more", "ab"[i % 2]) for i in range(40)]
    (tmp_path / "train.txt").write_text("".join(f"{text};{label}\n" for text, label in rows))
    long = "a quite long text of many words that is nearly the same as one in training"
    with (tmp_path / "train.txt").open("a") as file:
        file.write(f"{rows[3][0]};a\n{long};a\n")
    (tmp_path / "val.txt").write_text("".join(f"fresh {i} words {i};{'ab'[i % 2]}\n" for i in range(10)))
    with (tmp_path / "val.txt").open("a") as file:
        file.write(f"{rows[7][0]};b\n{long} indeed;b\n")
    result = explored(tmp_path / "out", "data=txt", f"data.path={tmp_path}")
    assert "\nnote: texts of validation that are also in train: 1\n" in capsys.readouterr().out
    exact, near = result["duplicates"], result["near"]
    assert (exact["rows"], exact["groups"], exact["across"], exact["contrary"]) == (2, 2, 1, 1)
    assert [row["place"] for row in exact["listed"][0]["members"]] == [
        f"{tmp_path}/train.txt:4",
        f"{tmp_path}/train.txt:41",
    ]
    assert [(row["split"], row["row"]) for row in exact["listed"][1]["members"]] == [("train", 8), ("validation", 11)]
    (pair,) = [one for one in near["listed"] if "quite long" in one["members"][0]["text"]]
    assert [row["place"] for row in pair["members"]] == [f"{tmp_path}/train.txt:42", f"{tmp_path}/val.txt:12"]
    assert near["across"] >= 1


def test_several_labels_and_hostile_texts(tmp_path: Path) -> None:
    rows = [{"text": f"{NASTY} {i}", "label": [NASTY, "b"][: i % 3]} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = explored(tmp_path / "out", "data=jsonl", f"data.path={tmp_path}/rows.jsonl")
    text = check_page(tmp_path / "out/data.html")
    assert result["task"] == "multi_label"
    assert '<script>alert("joy")</script> ⟨U+202E⟩evil' in text
    assert "{{ 7 * 7 }} 🎉 <img src=x" in text
    with pytest.raises(UserError, match="this is a multi_label task"):
        explored(tmp_path / "out", "data=jsonl", f"data.path={tmp_path}/rows.jsonl", "features=true")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_hidden_states_of_the_encoder(tmp_path: Path, encoders: object, pooling: str) -> None:
    settings = [f"model.name={encoders('distilbert')}", "features=true", f"pooling={pooling}", "feature_rows=120"]
    result = explored(tmp_path, *settings)["features"]
    assert result["rows"] == {"train": 120, "validation": 120}
    table = np.array(result["confusion"])
    assert table.sum() == 120
    assert result["accuracy"] == pytest.approx(np.trace(table) / 120)
    assert f"{100 * result['accuracy']:.1f} %" in check_page(tmp_path / "data.html")
    assert {name: np.shape(own) for name, own in result["projections"].items()} == {"PCA": (120, 2), "t-SNE": (120, 2)}
    again = explored(tmp_path / "again", *settings)["features"]
    assert again == result, "from the cache"


def test_vectors_are_those_of_the_encoder(encoders: object) -> None:
    import torch

    from thaw.exploration.features import text_vectors
    from thaw.labels import LabelSet
    from thaw.models.encoder import load_encoder, load_tokenizer

    folder = encoders("bert")
    network = load_encoder(folder, LabelSet("sequence", ("a", "b"), (1, 1)), {})
    tokenizer = load_tokenizer(folder, "sequence")
    texts = ["the cat", "a longer text with more words in it"]
    batches = []
    for row in (1, 0):
        one = tokenizer([texts[row]], return_tensors="pt", padding="max_length", max_length=24)
        batches.append({**one, "rows": torch.tensor([row])})
    for pooling in ("cls", "mean"):
        found = text_vectors(network, batches, pooling, lambda rows: None)
        for row, text in enumerate(texts):
            with torch.no_grad():
                states = network.base_model.eval()(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
            expected = states[0] if pooling == "cls" else states.mean(0)
            assert found[row] == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pooling=max"], "pooling=max is not one of: cls, mean"),
        (["data=conll2003_sample", "features=true"], "features=true needs one label per text"),
        (["features=true", "feature_rows=1"], "feature_rows=1: all these rows have one label"),
        (["data=csv"], "data.path"),
        (["data.path=nowhere"], "nowhere: no such file or folder"),
        (["featurs=true"], "did you mean features?"),
        (["output=/dev/null/page"], "output=/dev/null/page: /dev/null is not a writable folder"),
    ],
)
def test_mistakes_get_one_line(script: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = script("explore.py", *arguments, ok=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("outputs/explore/*/*/*"))


def test_rows_of_all_splits_have_one_numbering(encoders: object) -> None:
    from functools import partial

    from omegaconf import OmegaConf

    from thaw.models.encoder import load_tokenizer

    settings = OmegaConf.to_container(configured("data.train_size=30", "data.eval_size=10").data, resolve=True)
    data = TextDataModule(settings, partial(load_tokenizer, encoders("bert")), 32, 0)
    data.prepare()
    rows = AllRows(data)
    texts = [text for name in data.rows for text in data.rows[name]["text"]]
    assert list(rows.stream()) == texts
    assert list(rows.stream(np.array([45, 3, 31]))) == [texts[45], texts[3], texts[31]]
    told = rows.described(31)
    assert (told["split"], told["row"], told["text"]) == ("validation", 2, texts[31])

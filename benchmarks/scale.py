"""Growth with the number of rows: reading and encoding, one epoch of batches, and prediction, each in seconds a row.

    python -m benchmarks.scale [sizes=10000,100000,1000000]

The rows are made up of random words, about 20 tokens each; prediction is by a tiny network, so that everything around
it is what is measured. Time should be linear and memory flat: data is memory-mapped, and prediction is a stream.
"""

import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.pairs import run
from benchmarks.settings import configured, own_settings, script

WORDS = (
    "the", "a", "film", "was", "good", "bad", "and", "of", "to", "story", "actor", "very", "not", "dull", "bright",
    "long", "short", "scene", "heart", "music",
)  # fmt: skip


def texts(rows: int) -> Iterator[str]:
    draw = random.Random(0)
    for i in range(rows):
        yield f"row {i} " + " ".join(draw.choices(WORDS, k=draw.randint(5, 30)))


def measure(rows: int) -> None:
    """One size in this process: prints seconds and peak memory after each part."""
    from omegaconf import OmegaConf
    from transformers import BertConfig, BertForSequenceClassification

    from thaw.data.module import TextDataModule
    from thaw.hub import locate_encoder
    from thaw.inference.predictor import Predictor
    from thaw.models.encoder import load_tokenizer

    row: dict[str, float] = {}

    def done(name: str, since: float) -> None:
        row[name] = time.perf_counter() - since
        row[f"{name} peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.txt"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{text};{'ab'[i % 2]}\n" for i, text in enumerate(texts(rows)))
        config = configured(["data=txt", f"data.path={path}"])
        encoder = locate_encoder(OmegaConf.to_container(config.model))  # type: ignore[arg-type]
        settings = OmegaConf.to_container(config.data, resolve=True)
        clock = time.perf_counter()
        data = TextDataModule(settings, partial(load_tokenizer, encoder), 128, 1)  # type: ignore[arg-type]
        data.prepare()
        done("encode", clock)
        clock = time.perf_counter()
        for _ in data.train_dataloader():
            pass
        done("batch", clock)
        row["tokens"] = int(data.encoded["train"].kept.sum())
        tiny = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        network = BertForSequenceClassification(tiny)
        predictor = Predictor.from_network(network, data.tokenizer, data.labels, max_length=128)
        clock = time.perf_counter()
        for _ in predictor.stream(texts(rows)):
            pass
        done("predict", clock)
    print(json.dumps(row))


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["measure"]:
        measure(int(arguments[1]))
        return
    own = own_settings(arguments, {"sizes": "10000,100000,1000000"})
    for size in own["sizes"].split(","):
        with tempfile.TemporaryDirectory() as cache:
            row = run(["benchmarks.scale", "measure", size], cache=cache)
        parts = "   ".join(
            f"{name} {1e6 * row[name] / int(size):6.1f} µs a row, {row[f'{name} peak_mb']:5.0f} MB"
            for name in ("encode", "batch", "predict")
        )
        rate = row["tokens"] / row["batch"] / 1e6
        print(f"{int(size):>9} rows   {parts}   batches: {rate:.1f} million tokens a second", flush=True)


if __name__ == "__main__":
    script(main)

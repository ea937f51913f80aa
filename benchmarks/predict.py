"""Prediction: rows a second against the Hugging Face pipeline at its best batch size, and the latency of one text.

    python -m benchmarks.predict run=outputs/... input=texts.txt [rows=2000] [pairs=3]
        [systems=thaw,thaw_bf16-mixed,thaw_onnx,thaw_onnx_int8,pipeline_1,pipeline_8,pipeline_32]

The forms of ONNX are there once ``export.py`` has made them; bf16-mixed is a precision; the number is the pipeline's
batch size. Every system labels the same rows of a file of texts, one a line; their labels and scores are compared.
"""

import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pairs import RESULTS, alternate, report
from benchmarks.settings import own_settings, script
from thaw.errors import UserError
from thaw.values import PREDICTS_IN

SYSTEMS = "thaw,pipeline_1,pipeline_8,pipeline_32"
Answers = list[tuple[str, float]]


def thaw(run: str, form: str) -> Callable[[list[str]], Answers]:
    from thaw.inference.predictor import Predictor
    from thaw.memory import keep_freed_memory

    keep_freed_memory()  # as every script of thaw begins
    options: dict[str, Any] = {"precision" if form in PREDICTS_IN else "backend": form}
    predictor = Predictor.from_run(run, **options)
    return lambda texts: [(row["label"], row["score"]) for row in predictor(texts)]


def pipeline(run: str, batch_size: int) -> Callable[[list[str]], Answers]:
    import transformers

    length = json.loads((Path(run) / "labels.json").read_text())["max_length"]
    classify: Any = transformers.pipeline("text-classification", model=f"{run}/model", batch_size=batch_size)
    return lambda texts: [(row["label"], row["score"]) for row in classify(texts, truncation=True, max_length=length)]


def side(system: str, run: str, source: str, rows: int) -> None:
    """One system in this process: prints its seconds, and its latency of one text at the 50th and 95th percentile."""
    texts = [line.strip() for line in Path(source).read_text(encoding="utf-8").split("\n")][:rows]
    name, _, form = system.partition("_")
    predict = thaw(run, form or "32-true") if name == "thaw" else pipeline(run, int(form))
    predict(texts[:64])
    clock = time.perf_counter()
    answers = predict(texts)
    seconds = time.perf_counter() - clock
    single = []
    for text in texts[:100]:
        clock = time.perf_counter()
        predict([text])
        single.append(1000 * (time.perf_counter() - clock))
    cuts = statistics.quantiles(single, n=20)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"answers_{system}.json").write_text(json.dumps(answers))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"seconds": seconds, "rows_a_second": len(texts) / seconds, "peak_mb": peak}
    print(json.dumps({**row, "ms_p50": cuts[9], "ms_p95": cuts[18]}))


def compare(systems: list[str]) -> None:
    """How much the labels and scores of the systems differ."""
    first, *others = (json.loads((RESULTS / f"answers_{system}.json").read_text()) for system in systems)
    for system, answers in zip(systems[1:], others, strict=True):
        pairs = list(zip(first, answers, strict=True))
        same = sum(mine[0] == theirs[0] for mine, theirs in pairs)
        apart = max(abs(mine[1] - theirs[1]) for mine, theirs in pairs if mine[0] == theirs[0])
        print(f"{system}: {same} of {len(pairs)} labels as {systems[0]}, scores at most {apart:.1e} apart")


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["side"]:
        side(arguments[1], arguments[2], arguments[3], int(arguments[4]))
        return
    own = own_settings(arguments, {"run": "", "input": "", "rows": "2000", "pairs": "3", "systems": SYSTEMS})
    if not own["run"] or not own["input"]:
        raise UserError("run or input is missing", "Give run=outputs/... input=texts.txt.")
    run, source = (str(Path(own[name]).expanduser().resolve()) for name in ("run", "input"))
    systems = own["systems"].split(",")
    commands = {system: ["benchmarks.predict", "side", system, run, source, own["rows"]] for system in systems}
    report("predict", [f"{name}={value}" for name, value in own.items()], alternate(commands, int(own["pairs"])))
    compare(systems)


if __name__ == "__main__":
    script(main)

"""Runs an exported model with ONNX Runtime: needs onnxruntime, tokenizers and numpy, but not torch or transformers.

``load_onnx("outputs/.../onnx")(["I love this"])`` gives the same as `Predictor` with torch.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from thaw.errors import UserError, require
from thaw.inference.predictor import Arrays, Logits, Predictor
from thaw.inference.saved import saved_options
from thaw.labels import LabelSet

FILES = {None: "model.onnx", "int8": "model_int8.onnx"}
KEYS = ("pad_token_id", "max_length", "clean_html", "joined_by")  # in labels.json, beside the labels
Compute = Callable[[Arrays], np.ndarray]

BATCH_SIZE = 32
BATCH_TOKENS = 512  # so few that the activations of a batch stay in the cache of a core


class PlainTokenizer:
    """A ``tokenizer.json`` with the part of transformers' interface that prediction uses.

    Args:
        file: saved by the tokenizers library.
        pad_token_id: id of the padding token.
    """

    def __init__(self, file: Path, pad_token_id: int) -> None:
        from tokenizers import Tokenizer

        self.backend = Tokenizer.from_file(str(file))
        self.backend.no_padding()
        self.backend.no_truncation()
        self.pad_token_id = pad_token_id
        known = (self.backend.token_to_id(name) for name in ("[MASK]", "<mask>"))
        self.mask_token_id = next((own for own in known if own is not None), None)

    def __call__(
        self, texts: list[Any], *, add_special_tokens: bool = True, is_split_into_words: bool = False, **_: Any
    ) -> SimpleNamespace:
        return SimpleNamespace(encodings=self.backend.encode_batch(texts, is_split_into_words, add_special_tokens))


def load_onnx(
    folder: str | Path,
    quantize: str | None = None,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    calibrated: bool = False,
    min_score: float | None = None,
) -> Predictor:
    """The predictor of an exported model; needs nothing but its folder.

    Args:
        folder: as ``export.py format=onnx`` wrote it.
        quantize: ``int8`` for the quantised model.
        calibrated: give probabilities at the temperature that training found.
        min_score: what scores less gets no label, see `thaw.inference.abstaining`.
        threads: CPU threads; None takes ``OMP_NUM_THREADS``, or one for each core that this process may use.

    Raises:
        UserError: when ``quantize`` is not known, the folder holds no such model, or ONNX Runtime is not installed.
    """
    if quantize not in FILES:
        raise UserError(f"quantize={quantize} is not known", "Give int8, or leave it out.")
    path = Path(folder).expanduser() / FILES[quantize]
    if not path.is_file():
        option = f" quantize={quantize}" if quantize else ""
        raise UserError(f"{path}: no such model", f"Make it: python export.py run=... format=onnx{option}")
    with _whole(path.parent / "labels.json") as file:
        saved = json.loads(file.read_text(encoding="utf-8"))
        padding, *_ = (saved[key] for key in KEYS)
        labels = LabelSet.from_dict(saved)
    with _whole(path.parent / "tokenizer.json") as file:
        tokenizer = PlainTokenizer(file, padding)
    options = {**saved_options(saved, calibrated, folder), "min_score": min_score}
    size = BATCH_SIZE if batch_size is None else batch_size
    logits = onnx_logits(path, threads)
    return Predictor(logits, tokenizer, labels, batch_size=size, batch_tokens=BATCH_TOKENS, **options)


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Explain in one line that a file of an exported model is damaged or missing."""
    try:
        yield file
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exceptions
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{file}: damaged: {reason}", "Export the run again.") from None


def onnx_logits(path: Path, threads: int | None) -> Logits:
    """A model file as a function of batches, on the CPU.

    A session has a fixed number of threads and its own copy of the weights. There is one session for parallel batches
    and one for single batches, each created when it is first needed.

    Raises:
        UserError: when ONNX Runtime is not installed, or, at the first batch, when it cannot read the file.
    """
    onnxruntime = require("onnxruntime", "backend=onnx", "onnx")

    @cache
    def on_threads(number: int) -> Compute:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = number
        options.inter_op_num_threads = 1
        # Threads that spin between operators take the core from other processes: next to one, a single text took four
        # times as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        try:
            session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                # Fused, a sum and a norm take four times as long as separately, a sum and GELU a third longer.
                disabled_optimizers=["SkipLayerNormFusion", "BiasGeluFusion"],
            )
        except Exception as error:  # the runtime has many exception types without a common base
            raise UserError(f"{path}: {error}", "Is it damaged? Export the run again.") from error

        def compute(batch: Arrays) -> np.ndarray:
            ids, mask = batch
            return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]

        return compute

    # By default the runtime takes every core of the machine, even if it may use only some.
    return partial(side_by_side, on_threads, threads or cpu_threads())


def side_by_side(on_threads: Callable[[int], Compute], threads: int, batches: Iterable[Arrays]) -> Iterator[np.ndarray]:
    """The logits of each batch in order, with one batch per thread, so that threads need not synchronise.

    This is a fifth faster for integers and a tenth for floats. If there are too few batches to occupy more than half of
    the threads, they run one after another, each on all threads. A few batches are read ahead.

    Args:
        on_threads: gives a function that computes on that many threads.
    """
    batches = iter(batches)
    first = list(islice(batches, threads))
    if threads == 1 or len(first) <= threads // 2:
        yield from map(on_threads(threads), chain(first, batches))
        return
    compute = on_threads(1)
    waiting: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in chain(first, batches):
            waiting.append(pool.submit(compute, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def cpu_threads() -> int:
    """The number of threads to use: ``OMP_NUM_THREADS``, or one for each core that this process may use."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exported_folder(run: str | Path) -> Path:
    """The folder of a run's exported model; an exported folder may also be given itself."""
    folder = Path(run).expanduser()
    return folder if (folder / FILES[None]).is_file() else folder / "onnx"

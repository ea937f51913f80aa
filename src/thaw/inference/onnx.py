"""An exported model with ONNX Runtime: needs onnxruntime, tokenizers and numpy, and neither torch nor transformers.

``load_onnx("outputs/.../onnx")(["I love this"])`` gives what `Predictor` gives with torch.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from thaw.errors import UserError, missing
from thaw.inference.predictor import Logits, Predictor, require_temperature
from thaw.labels import LabelSet

FILES = {None: "model.onnx", "int8": "model_int8.onnx"}
# Few enough that their activations stay in the cache of a CPU, and enough for its threads to share: a sixth faster than
# 256 tokens at a time on two cores.
BATCH_SIZE = 32
THREAD_TOKENS = 512


class PlainTokenizer:
    """A ``tokenizer.json`` behind the part of transformers' interface that prediction uses.

    Args:
        file: as the tokenizers library saves it.
        pad_token_id: of the padding token.
    """

    def __init__(self, file: Path, pad_token_id: int) -> None:
        from tokenizers import Tokenizer

        self.backend = Tokenizer.from_file(str(file))
        self.backend.no_padding()
        self.backend.no_truncation()
        self.pad_token_id = pad_token_id
        known = (self.backend.token_to_id(name) for name in ("[MASK]", "<mask>"))
        self.mask_token_id = next((own for own in known if own is not None), None)

    def __call__(self, texts: list[Any], *, add_special_tokens: bool = True, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(encodings=self.backend.encode_batch(texts, add_special_tokens=add_special_tokens))


def load_onnx(
    folder: str | Path,
    quantize: str | None = None,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    calibrated: bool = False,
) -> Predictor:
    """The predictor of an exported model; needs nothing but its folder.

    Args:
        folder: as ``export.py format=onnx`` wrote it.
        quantize: ``int8`` for the quantised model.
        calibrated: give probabilities at the temperature that training found.
        threads: of the CPU; None takes ``OMP_NUM_THREADS``, else one for each core that this process may use.

    Raises:
        UserError: when the folder holds no such model, or ONNX Runtime is not installed.
    """
    path = Path(folder).expanduser() / FILES[quantize]
    if not path.is_file():
        option = f" quantize={quantize}" if quantize else ""
        raise UserError(f"{path}: no such model", f"Make it: python export.py run=... format=onnx{option}")
    saved = json.loads((path.parent / "labels.json").read_text(encoding="utf-8"))
    require_temperature(saved, calibrated, folder)
    return Predictor(
        onnx_logits(path, threads),
        PlainTokenizer(path.parent / "tokenizer.json", saved["pad_token_id"]),
        LabelSet.from_dict(saved),
        max_length=saved["max_length"],
        batch_size=BATCH_SIZE if batch_size is None else batch_size,
        batch_tokens=THREAD_TOKENS * (threads or cpu_threads()),
        thresholds=saved.get("thresholds"),
        temperature=saved.get("temperature"),
        calibrated=calibrated,
        clean=saved.get("clean_html", False),
    )


def onnx_logits(path: Path, threads: int | None = None) -> Logits:
    """A model file as a function of arrays, on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise missing("backend=onnx", "onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    # Left to itself the runtime takes every core of the machine, also of one that it shares.
    options.intra_op_num_threads = threads or cpu_threads()
    options.inter_op_num_threads = 1
    # Threads that spin between operators take the core from whatever else computes: beside another process they made
    # a single text four times slower, and batches up to a half.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        # A sum and a norm joined take four times as long as one after the other: a seventh of the whole.
        disabled_optimizers=["SkipLayerNormFusion"],
    )

    def logits(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
        return result

    return logits


def cpu_threads() -> int:
    """Threads to compute with: ``OMP_NUM_THREADS``, else one for each core that this process may use."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exported_folder(run: str | Path) -> Path:
    """Where the exported model of a run lies; a folder that was exported elsewhere may be given itself."""
    folder = Path(run).expanduser()
    return folder if (folder / FILES[None]).is_file() else folder / "onnx"

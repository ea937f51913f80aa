"""Predict with a finished run, from Python or from the command line.

Torch is imported only when a torch network is loaded, so that an exported model can be served without it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thaw.data.encoding import Encoded, encode_split
from thaw.data.ragged import capped, pad_rows, sorted_batches
from thaw.data.spans import word_spans
from thaw.data.tokenizing import chunks
from thaw.errors import UserError
from thaw.inference.abstaining import abstaining
from thaw.inference.classifying import classify_texts
from thaw.inference.saved import saved_options
from thaw.inference.tagging import tag_texts
from thaw.inference.texts import Given, as_in_training, without_surrogates
from thaw.inference.voting import together
from thaw.labels import LabelSet
from thaw.metrics.probabilities import probabilities
from thaw.values import BACKENDS

if TYPE_CHECKING:
    from thaw.metrics.outputs import Outputs
    from thaw.models.prefix import FrozenPrefix

Arrays = tuple[np.ndarray, np.ndarray]
"""A batch: token ids and attention mask, both (rows, tokens)."""

Logits = Callable[[Iterable[Arrays]], Iterator[np.ndarray]]
"""Gives the logits of each batch in order, (rows, labels), or (rows, tokens, labels) for token tasks."""

THREAD_TOKENS = 2048  # tokens per CPU thread in a batch: with more, the activations do not fit into the cache
CHUNK_BATCHES = 32  # batches whose texts are sorted by length together


class Predictor:
    """Labels texts with a fine-tuned network.

    ``Predictor.from_run("outputs/...")(["I love this"])`` gives one dict per text.

    Args:
        logits: the network as a function: `torch_logits`, or a session of ONNX Runtime.
        tokenizer: its fast tokenizer.
        labels: task and names.
        max_length: maximum tokens per input; in token tasks longer texts are read in overlapping windows.
        truncation: what is cut of other longer texts, see `thaw.data.tokenizing.cut`; of ``windows`` the logits are
            averaged.
        batch_size: maximum texts per batch.
        batch_tokens: maximum tokens per batch, padding included; None for no limit.
        thresholds: multi-label tasks: the probability from which on each label is predicted.
        temperature: calibrates the probabilities; None if it is not known.
        calibrated: give probabilities at that temperature; this changes labels only where several runs vote, or where
            ``min_score`` refers to them.
        min_score: what scores less gets no label, see `thaw.inference.abstaining`; in multi-label tasks, the threshold
            of every label. It refers to calibrated scores if these are given.
        clean: remove HTML from each text, as in training.
        joined_by: token tasks: punctuation that may be inside a word, see `joiners`.

    Attributes:
        cut: how many of the texts so far were cut.
        sure, unsure: how many labels (of texts, entities or words) so far had ``min_score``, and how many had less.
        others: predictors whose probabilities are averaged with its own, see `from_runs`.
    """

    def __init__(
        self,
        logits: Logits,
        tokenizer: Any,
        labels: LabelSet,
        *,
        max_length: int,
        truncation: str = "end",
        batch_size: int = 64,
        batch_tokens: int | None = None,
        thresholds: list[float] | None = None,
        temperature: float | None = None,
        calibrated: bool = False,
        min_score: float | None = None,
        clean: bool = False,
        joined_by: str = "",
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size={batch_size} is not a number of texts", "Give 64, for example.")
        if min_score is not None and not 0 <= min_score <= 1:
            raise UserError(f"min_score={min_score} is not a number from 0 to 1", "Give 0.9, for example.")
        self.logits, self.tokenizer, self.labels = logits, tokenizer, labels
        self.max_length, self.truncation = max_length, truncation
        self.batch_size, self.batch_tokens = batch_size, batch_tokens
        self.network: Any = None  # the torch network, for gradients
        self.prefix: FrozenPrefix | None = None  # set after training, when the output of frozen layers is known
        self.thresholds = thresholds or [0.5] * len(labels) if min_score is None else [min_score] * len(labels)
        self.temperature, self.calibrated, self.min_score = temperature, calibrated, min_score
        self.clean, self.joined_by = clean, joined_by
        self.others: list[Predictor] = []
        self.cut = self.sure = self.unsure = 0

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        batch_size: int | None = None,
        backend: str = "torch",
        calibrated: bool = False,
        min_score: float | None = None,
        precision: str = "32-true",
        prefix: "Callable[[Any], FrozenPrefix] | None" = None,
    ) -> "Predictor":
        """The predictor of a finished run; needs nothing but its folder.

        Args:
            backend: ``torch``, or ``onnx`` or ``onnx_int8`` for what ``export.py`` left in the run folder.
            batch_size, calibrated, min_score: of the class.
            precision: ``32-true``, or ``bf16-mixed`` or ``16-mixed``, which are faster where the hardware has them.
            prefix: gives the frozen prefix of the network, if training has computed it already.

        Raises:
            UserError: when the folder is not a run, the run is not finished, was not exported, or has no temperature.
        """
        if backend not in BACKENDS:
            raise UserError(f"backend={backend} is not known", f"Choose one of: {', '.join(BACKENDS)}.")
        if backend != "torch":
            if precision != "32-true":
                raise UserError(f"backend={backend} has a precision of its own", "Leave precision out.")
            from thaw.inference.onnx import exported_folder, load_onnx

            quantize = backend.partition("_")[2] or None
            shared: dict[str, Any] = {"batch_size": batch_size, "calibrated": calibrated, "min_score": min_score}
            return load_onnx(exported_folder(folder), quantize, **shared)
        from thaw.files import read_json
        from thaw.runs import load_config, open_run

        run = open_run(folder, needs="model")
        config, saved = load_config(run), read_json(run / "labels.json")
        size = config.data.eval_batch_size if batch_size is None else batch_size
        options = {**saved_options(saved, calibrated, folder), "min_score": min_score, "batch_size": size}
        from thaw.inference.network import load_network
        from thaw.models.speed import accelerate

        network, tokenizer = load_network(run)
        accelerate(network)
        return cls.from_network(network, tokenizer, LabelSet.from_dict(saved), prefix, precision, **options)

    @classmethod
    def from_runs(cls, folders: Sequence[str | Path], **options: Any) -> "Predictor":
        """One predictor of several finished runs, which averages their probabilities.

        Args:
            folders: of the runs; that of a multirun stands for its finished runs.
            options: of `from_run`, for every run.

        Raises:
            UserError: as by `from_run`, and when the runs differ in their task, their labels or the words they read.
        """
        from thaw.runs import several

        names = several(folders)
        return together([cls.from_run(name, **options) for name in names], names)

    @classmethod
    def from_network(
        cls,
        network: Any,
        tokenizer: Any,
        labels: LabelSet,
        prefix: "Callable[[Any], FrozenPrefix] | None" = None,
        precision: str = "32-true",
        **options: Any,
    ) -> "Predictor":
        """The predictor of a torch network.

        Args:
            network: a transformers encoder with a head.
            tokenizer, labels, options: of the class.
            prefix, precision: as for `from_run`.
        """
        import torch

        from thaw.inference.network import torch_logits

        tokens = None if torch.cuda.is_available() else THREAD_TOKENS * torch.get_num_threads()
        predictor = cls(torch_logits(network, precision), tokenizer, labels, batch_tokens=tokens, **options)
        predictor.network = network
        predictor.prefix = prefix(network) if prefix else None
        return predictor

    def __call__(self, texts: Sequence[Given], probabilities: bool = False) -> list[dict[str, Any]]:
        """Predict a list of texts.

        Args:
            texts: any strings; for token tasks also lists of words, which are not split further. For runs trained on
                pairs: (first, second), ``{"text": first, "text_pair": second}`` as for the pipeline, or one string with
                " [SEP] " between the two.
            probabilities: also give the probability of every label (sequence and multi-label tasks).

        Returns:
            Sequence: ``text``, ``label``, ``score``. Multi-label: ``text``, ``labels``, ``scores``. Token: ``text``
            and ``entities`` with ``type``, ``text``, ``start``, ``end`` (characters) and ``score``; for lists of words:
            ``words``, ``tags`` and ``scores``, and ``entities``, whose ``start`` and ``end`` count words. With
            ``min_score`` as `thaw.inference.abstaining` says. A text of which nothing is visible has no label or score.
        """
        return list(self.stream(texts, probabilities))

    def stream(self, texts: Iterable[Given], probabilities: bool = False) -> Iterator[dict[str, Any]]:
        """The same as a call, but lazily and in constant memory; results come in the order of the texts."""
        if isinstance(texts, str | bytes | Mapping):
            raise TypeError("texts is a single one; give a list of them")
        readable = (as_in_training(text, self.labels, self.clean, i) for i, text in enumerate(texts))
        for chunk in chunks(readable, CHUNK_BATCHES * self.batch_size):
            words = self.labels.task == "token"
            every = tag_texts(self, chunk) if words else classify_texts(self, chunk, probabilities)
            yield from every if self.min_score is None else abstaining(self, every)

    def encode(self, texts: Sequence[Any], gold: Sequence[Any]) -> Encoded:
        """Labelled rows, as the network reads them.

        Args:
            texts: strings, or lists of words.
            gold: an id, a list of ids, or an id for each word.
        """
        return encode_split(
            texts, gold, self.labels, self.tokenizer, self.max_length, "first", truncation=self.truncation
        )

    def outputs(
        self,
        encoded: Encoded,
        progress: Callable[[int], None] | None = None,
        batches: Sequence[np.ndarray] | None = None,
    ) -> "Outputs":
        """Logits and true labels of an encoded split, in the order of its texts or sentences.

        Args:
            progress: called with the number of rows after each batch.
            batches: row numbers of each batch; None groups rows of similar length.
        """
        import torch

        from thaw.data.batching import make_loader
        from thaw.metrics.outputs import Outputs
        from thaw.models.prefix import Unusable

        try:
            states = self.prefix.states([encoded]) if self.prefix else []
        except Unusable:  # too large to store: run the whole network instead
            states = []
        rows = [batch.tolist() for batch in batches or self.batches_of(encoded.kept)]
        loaded, read = tee(make_loader(encoded, rows, self.tokenizer.pad_token_id))
        logits_of_batches: Iterator[Any]
        if self.prefix and states:
            logits_of_batches = map(torch.inference_mode()(partial(self.prefix, states[0])), read)
        else:
            arrays = ((batch["input_ids"].numpy(), batch["attention_mask"].numpy()) for batch in read)
            logits_of_batches = self.logits(arrays)
        parts = []
        for batch, logits in zip(loaded, logits_of_batches, strict=True):
            parts.append(Outputs.of_batch(batch, torch.as_tensor(logits)))
            if progress:
                progress(len(batch["rows"]))
        return Outputs.join(parts)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of each label, calibrated if that was asked for."""
        return probabilities(logits / self.temperature if self.calibrated and self.temperature else logits, self.labels)

    def chosen(self, probabilities: np.ndarray) -> Any:
        """The predicted label of one text; in multi-label tasks, the list of labels.

        Args:
            probabilities: those that decide, see `thaw.inference.voting.voted`.
        """
        if self.labels.task == "multi_label":
            labels = zip(self.labels.names, probabilities, self.thresholds, strict=True)
            return [name for name, score, threshold in labels if score >= threshold]
        return self.labels.names[int(probabilities.argmax())]

    def batches_of(self, lengths: np.ndarray) -> list[np.ndarray]:
        batches = sorted_batches(lengths, self.batch_size)
        return capped(batches, lengths, self.batch_tokens) if self.batch_tokens else batches

    def row_logits(self, ids: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        """Logits of each row of a flat array, in order; in token tasks without padding."""
        lengths = np.diff(offsets)
        batches = self.batches_of(lengths)
        arrays = (pad_rows(ids, offsets, batch, self.tokenizer.pad_token_id) for batch in batches)
        results: list[np.ndarray] = [np.empty(0)] * len(lengths)
        for row, logits in zip(chain(*batches), chain.from_iterable(self.logits(arrays)), strict=True):
            results[row] = logits[: lengths[row]] if self.labels.task == "token" else logits
        return results

    def words_of(self, text: str) -> list[str]:
        """The words that a text is split into, for token tasks."""
        text = without_surrogates(text)
        return [text[start:end] for start, end in word_spans(text, self.joined_by)]

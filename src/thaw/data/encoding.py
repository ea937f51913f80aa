"""Text to token ids, words to sub-tokens with aligned labels, kept in flat arrays and cached on disk.

A split is a handful of flat arrays with offsets, not a list of lists: a batch is cut out of them by arithmetic, they
are memory-mapped from the cache, and worker processes share them.
"""

import hashlib
import itertools
import json
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from thaw.cache import cached, open_array
from thaw.data.pairs import parted, shares
from thaw.data.tokenizing import chunks, cut, encodings, pair_tokens, special_tokens
from thaw.data.windows import Windows, windows_over
from thaw.errors import UserError
from thaw.labels import IGNORED, LabelSet

CHUNK = 2_000  # texts handed to the tokenizer at once
VERSION = 2  # of the arrays' layout; part of the cache key


@dataclass(frozen=True)
class Encoded:
    """One split, ready for batching. Row ``i`` owns ``ids[offsets[i]:offsets[i + 1]]``.

    A sentence longer than the encoder reads is several rows, see `windows_over`, and so is a text that is read in
    windows. Each word of a sentence is learnt and predicted in one of them; a text has its label in all.

    Args:
        ids: token ids of all rows, special tokens included, int32.
        offsets: where each row starts, int64, one more than rows.
        lengths: tokens of each text or sentence in full, int32, a number for each text, not row.
        labels: sequence: an id for each row. Multi-label: 0 or 1 for each row and label. Token: an id for each
            token, `IGNORED` where nothing is to be learnt.
        words: token tasks: the number of the word at its first sub-token, -1 at all other tokens; else empty.
        tags: token tasks: the label of every word of each sentence; else empty.
        tag_offsets: token tasks: where each sentence's tags start; else empty.
        sentences: the number of the sentence or text that each row belongs to; empty where each row is a text.
    """

    ids: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    words: np.ndarray
    tags: np.ndarray
    tag_offsets: np.ndarray
    sentences: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def kept(self) -> np.ndarray:
        """Tokens of each row after truncation."""
        return np.diff(self.offsets)

    @property
    def too_long(self) -> float:
        """The share of texts that are truncated, or of sentences that are read in windows."""
        long = np.bincount(self.sentences) > 1 if len(self.sentences) else self.lengths > self.kept
        return float(long.mean())


def encode_texts(
    texts: Iterable[str], tokenizer: Any, max_length: int, pairs: bool = False, truncation: str = "end"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids of whole texts.

    Args:
        texts: any number of them; they are read in chunks.
        tokenizer: a fast tokenizer of transformers.
        max_length: tokens kept at most, special tokens included.
        pairs: each text is two, of which the longer one is cut first, at its end.
        truncation: what is cut of longer texts that are no pairs, see `cut`.

    Returns:
        (ids, offsets, lengths) as in `Encoded`. Truncation happens here, so that full lengths are known.
    """
    if pairs:
        return _encode_pairs(texts, tokenizer, max_length)
    before, after = special_tokens(tokenizer)
    special = len(before) + len(after)
    ids, kept, lengths = array("i"), [], []  # an array grows like a list, but takes 4 bytes a token
    for chunk in chunks(texts, CHUNK):
        for encoding in encodings(tokenizer, chunk):
            inner = cut(encoding.ids, max_length - special, truncation)
            ids.extend(before + inner + after)
            kept.append(len(inner) + special)
            lengths.append(len(encoding) + special)
    return np.asarray(ids), _offsets(kept), np.array(lengths, dtype=np.int32)


def encode_rows(
    texts: Iterable[str], tokenizer: Any, max_length: int, pairs: bool, truncation: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Token ids of whole texts as the encoder reads them: cut or, if ``truncation`` is ``windows``, in windows.

    Returns:
        (ids, offsets, lengths) as in `Encoded`, and the number of the text that each row belongs to.
    """
    if truncation != "windows":
        ids, offsets, lengths = encode_texts(texts, tokenizer, max_length, pairs, truncation)
        return ids, offsets, lengths, np.arange(len(lengths))
    ids, offsets, lengths = encode_texts(texts, tokenizer, sys.maxsize)
    windows = windows_of(offsets, tokenizer, max_length)
    return ids[windows.at], windows.offsets, lengths, windows.rows


def _encode_pairs(texts: Iterable[str], tokenizer: Any, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    before, between, after = pair_tokens(tokenizer)
    special = len(before) + len(between) + len(after)
    if max_length < special + 2:
        remedy = f"Give {special + 2} or more."
        raise UserError(f"data.max_length={max_length} leaves no token for one of the two texts of a pair", remedy)
    ids, kept, lengths = array("i"), [], []
    for chunk in chunks(texts, CHUNK):
        both = encodings(tokenizer, list(itertools.chain(*map(parted, chunk))))
        for one, other in zip(both[::2], both[1::2], strict=True):
            first, second = shares(len(one), len(other), max_length - special)
            ids.extend(before + one.ids[:first] + between + other.ids[:second] + after)
            kept.append(first + second + special)
            lengths.append(len(one) + len(other) + special)
    return np.asarray(ids), _offsets(kept), np.array(lengths, dtype=np.int32)


def encode_words(sentences: Iterable[Sequence[str]], tokenizer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids of whole sentences given as words.

    Returns:
        (ids, offsets, words): as in `Encoded`, and the number of the word that each token belongs to, -1 for special
        tokens.

    A byte-level tokenizer needs ``add_prefix_space``; without it words are encoded as if there were no blanks between.
    """
    before, after = special_tokens(tokenizer)
    ids, words, lengths = array("i"), array("i"), []
    for chunk in chunks(map(list, sentences), CHUNK):
        for encoding in encodings(tokenizer, chunk, words=True):
            ids.extend(before + encoding.ids + after)
            words.extend([-1] * len(before) + encoding.word_ids + [-1] * len(after))
            lengths.append(len(before) + len(encoding) + len(after))
    return np.asarray(ids), _offsets(lengths), np.asarray(words)


def windows_of(offsets: np.ndarray, tokenizer: Any, max_length: int) -> Windows:
    """The windows in which whole rows, of `encode_words` or `encode_texts`, are read."""
    before, after = special_tokens(tokenizer)
    return windows_over(offsets, (len(before), len(after)), max_length)


def align(
    tags: Sequence[int], words: np.ndarray, labels: LabelSet, subword_labels: str
) -> tuple[np.ndarray, np.ndarray]:
    """Labels for the sub-tokens of one sentence.

    Args:
        tags: label id of each word.
        words: word number of each token, -1 for special tokens.
        labels: gives I- for the sub-tokens that continue a word tagged B-.
        subword_labels: ``first`` labels the first sub-token of each word only, ``all`` every one.

    Returns:
        (labels, starts): a label id for each token, and whether the token is the first of its word.
    """
    starts = (words >= 0) & (words != np.concatenate(([-1], words[:-1])))
    of_word = np.asarray(tags, dtype=np.int64)[np.maximum(words, 0)]
    if subword_labels == "all":
        inside = np.array([labels.ids.get("I-" + name[2:], i) if name.startswith("B-") else i
                           for i, name in enumerate(labels.names)])  # fmt: skip
        aligned = np.where(starts, of_word, inside[of_word])
        return np.where(words >= 0, aligned, IGNORED), starts
    return np.where(starts, of_word, IGNORED), starts


def encode_split(
    texts: Iterable[Any],
    label_ids: Iterable[Any],
    labels: LabelSet,
    tokenizer: Any,
    max_length: int,
    subword_labels: str,
    score_subwords: bool = False,
    truncation: str = "end",
) -> Encoded:
    """Encode one split of any task.

    Args:
        texts: strings, or lists of words for token tasks.
        label_ids: an id, a list of ids (multi-label), or an id for each word; gone through twice.
        subword_labels: as in `align`.
        score_subwords: every labelled sub-token counts as a word.
        truncation: as in `encode_rows`; sentences are always read in windows.
    """
    if labels.task == "token":
        whole = _encode_tagged(texts, label_ids, labels, tokenizer, subword_labels, score_subwords)
        return whole if whole.kept.max() <= max_length else _in_windows(whole, tokenizer, max_length)
    ids, offsets, lengths, rows = encode_rows(texts, tokenizer, max_length, labels.pairs, truncation)
    if labels.task == "sequence":
        targets = np.fromiter(label_ids, dtype=np.int64)
    else:
        targets = np.zeros((len(lengths), len(labels)), dtype=np.int8)
        for row, chosen in enumerate(label_ids):
            targets[row, chosen] = 1
    empty = np.empty(0, dtype=np.int64)
    numbers = rows if len(rows) > len(lengths) else empty
    return Encoded(ids, offsets, lengths, targets[rows], empty, empty, empty, numbers)


def _encode_tagged(
    sentences: Iterable[Sequence[str]],
    tags: Iterable[Sequence[int]],
    labels: LabelSet,
    tokenizer: Any,
    subword_labels: str,
    score_subwords: bool,
) -> Encoded:
    """A split of a token task, a row for each whole sentence."""
    ids, offsets, words = encode_words(sentences, tokenizer)
    targets, firsts = np.empty(len(ids), dtype=np.int64), np.empty(len(ids), dtype=bool)
    for part, sentence_tags in zip(_slices(offsets), tags, strict=True):
        targets[part], firsts[part] = align(sentence_tags, words[part], labels, subword_labels)
    if score_subwords:
        firsts = targets != IGNORED
        words = np.concatenate([np.cumsum(firsts[part]) - 1 for part in _slices(offsets)])
        tags = [targets[part][firsts[part]] for part in _slices(offsets)]
    return Encoded(
        ids,
        offsets,
        np.diff(offsets).astype(np.int32),
        targets,
        np.where(firsts, words, -1),
        np.fromiter(itertools.chain.from_iterable(tags), dtype=np.int64),
        _offsets([len(sentence_tags) for sentence_tags in tags]),
        np.arange(len(offsets) - 1),
    )


def _in_windows(whole: Encoded, tokenizer: Any, max_length: int) -> Encoded:
    """A split of a token task with its long sentences in windows."""
    windows = windows_of(whole.offsets, tokenizer, max_length)
    return replace(
        whole,
        ids=whole.ids[windows.at],
        offsets=windows.offsets,
        labels=np.where(windows.own, whole.labels[windows.at], IGNORED),
        words=np.where(windows.own, whole.words[windows.at], -1),
        sentences=windows.rows,
    )


def encoding_key(texts: Iterable[Any], label_ids: Iterable[Any], tokenizer: Any, options: dict[str, Any]) -> str:
    """A key that changes with any text, label, tokenizer setting, option or library version."""
    import tokenizers
    import transformers

    digest = hashlib.sha256()
    header = [VERSION, tokenizers.__version__, transformers.__version__, options]
    digest.update(json.dumps(header, sort_keys=True).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for text, label in zip(texts, label_ids, strict=True):
        digest.update(json.dumps([text, label]).encode())
    return digest.hexdigest()[:32]


def cached_split(key: str, make: Callable[[], Encoded]) -> Encoded:
    """The arrays under a key, memory-mapped: from the cache, or made and stored."""

    def fill(folder: Path) -> None:
        encoded = make()
        for field in fields(Encoded):
            np.save(folder / f"{field.name}.npy", getattr(encoded, field.name))

    def read(folder: Path) -> Encoded:
        return Encoded(**{field.name: open_array(folder / f"{field.name}.npy") for field in fields(Encoded)})

    return cached("encoded", key, fill, read)


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _slices(offsets: np.ndarray) -> Iterator[slice]:
    return itertools.starmap(slice, itertools.pairwise(offsets))

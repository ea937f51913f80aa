"""Hides words of a text and computes the scores that result.

A word is hidden by replacing each of its tokens by the mask token, so that all others keep their positions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from thaw.data.ragged import flattened
from thaw.inference.predictor import Predictor

HELD = 500_000  # tokens of masked texts in memory at once, about a batch of 64 texts of 8,192 tokens


@dataclass(frozen=True)
class Target:
    """A score to explain: of a label, or of a predicted entity.

    Args:
        name: the label, or the type of the entity.
        places: the tokens that it is computed from, as indices into ``Reading.at``; the score is their mean.
        labels: the label id at each of them.
        span: of an entity: start and end in characters.
    """

    name: str
    places: np.ndarray
    labels: np.ndarray
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """A text as the network reads it, and what to explain about it.

    Args:
        ids: token ids, special tokens included, without what exceeds the maximum length.
        owner: the word that each token belongs to, -1 for tokens that are never hidden.
        words: start and end, in characters, of each word that has a token.
        unread: start and end, in characters, of what the network did not read.
        at: the tokens whose logits matter; empty for labels of the whole text.
        targets: what to explain.
    """

    ids: np.ndarray
    owner: np.ndarray
    words: list[tuple[int, int]]
    unread: list[tuple[int, int]]
    at: np.ndarray
    targets: list[Target]


Score = Callable[[Reading, np.ndarray, Predictor], np.ndarray]
"""`log_odds` or `probability`."""


def log_odds(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The log-odds of each target, log p / (1 - p).

    Unlike probabilities they do not saturate when the network is confident, and unlike logits they do not change when
    all logits of a text shift together.

    Args:
        values: logits (rows, places, labels); a single place for labels of the whole text.

    Returns:
        (rows, targets), float64.
    """
    multi_label, scale = predictor.labels.task == "multi_label", temperature_of(predictor)

    def score(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
        logits = (logits / scale).astype(np.float64)
        if multi_label:
            return logits[:, own]
        return logits[:, own] - np.logaddexp.reduce(np.where(own, -np.inf, logits), axis=-1)

    return _of_targets(reading, values, score)


def probability(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The probability of each target; arguments and result as for `log_odds`."""
    return _of_targets(reading, values, lambda logits, own: predictor.probabilities(logits)[:, own])


def _of_targets(
    reading: Reading, values: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """A score averaged over the places of each target.

    Args:
        score: from logits (rows, places, labels) and a mask of each place's label to (rows, places).
    """
    known = np.eye(values.shape[-1], dtype=bool)
    columns = [score(values[:, target.places], known[target.labels]).mean(-1) for target in reading.targets]
    return np.stack(columns, -1) if columns else np.zeros((len(values), 0))


def temperature_of(predictor: Predictor) -> float:
    return (predictor.calibrated and predictor.temperature) or 1.0


def hidden_id(tokenizer: Any) -> int:
    """The token that replaces hidden ones: the mask token, or padding if there is none."""
    return tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id


def masked_scores(
    predictor: Predictor, readings: Sequence[Reading], kept: Iterable[np.ndarray], score: Score
) -> list[np.ndarray]:
    """The score of each target with some of the words hidden; repeated rows are computed once.

    Args:
        kept: (rows, words) for each text: which words stay. An iterable, so that only one text's rows are in memory.

    Returns:
        (rows, targets) for each text.
    """
    mask_id = hidden_id(predictor.tokenizer)
    backs: list[list[int]] = []
    found: list[list[np.ndarray]] = [[] for _ in readings]

    def different() -> Iterator[tuple[int, np.ndarray]]:
        """The distinct masked texts, each with the index of its text."""
        for i, (reading, rows) in enumerate(zip(readings, kept, strict=True)):
            known: dict[bytes, int] = {}
            backs.append([])
            for row in rows:
                key = np.packbits(row).tobytes()
                if key not in known:
                    known[key] = len(known)
                    yield i, np.where(np.append(row, True)[reading.owner], reading.ids, mask_id)  # -1: always shown
                backs[i].append(known[key])

    for piece in _pieces(different()):
        logits = predictor.row_logits(*flattened([ids for _, ids in piece]))
        for i, group in groupby(zip(piece, logits, strict=True), key=lambda pair: pair[0][0]):
            reading = readings[i]
            values = np.stack([own[reading.at] if own.ndim == 2 else own[None] for _, own in group])
            found[i].append(score(reading, values, predictor))
    return [np.concatenate(own)[back] for own, back in zip(found, backs, strict=True)]


def _pieces(rows: Iterable[tuple[int, np.ndarray]]) -> Iterator[list[tuple[int, np.ndarray]]]:
    """The rows in lists of at most `HELD` tokens, but at least one row."""
    held: list[tuple[int, np.ndarray]] = []
    size = 0
    for row in rows:
        if held and size + len(row[1]) > HELD:
            yield held
            held, size = [], 0
        held.append(row)
        size += len(row[1])
    if held:
        yield held

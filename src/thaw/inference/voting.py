"""Probabilities of texts and words; those of several runs are averaged (soft voting)."""

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from thaw.data.encoding import encode_rows, encode_words, windows_of
from thaw.errors import UserError
from thaw.labels import LabelSet
from thaw.metrics.probabilities import averaged, probabilities

if TYPE_CHECKING:
    from thaw.inference.predictor import Predictor


def together(members: "Sequence[Predictor]", names: Sequence[Any]) -> "Predictor":
    """The first of some predictors, with the others as its ``others``; its thresholds are those of all, averaged.

    Args:
        names: of their runs, for errors.

    Raises:
        UserError: as `check_voters`.
    """
    first, *others = members
    if not others:
        return first
    check_voters(names, [one.labels for one in members], [one.clean for one in members])
    by_name = [dict(zip(one.labels.names, one.thresholds, strict=True)) for one in members]
    first.thresholds = [mean(own[name] for own in by_name) for name in first.labels.names]
    first.others = others
    return first


def check_voters(names: Sequence[Any], labels: Sequence[LabelSet], cleaned: Sequence[bool]) -> None:
    """Refuse to average the probabilities of runs that mean something else by them.

    Args:
        names: of the runs, for errors.
        labels: of each.
        cleaned: whether each was trained on texts without HTML.

    Raises:
        UserError: when two of them do not give probabilities of the same labels to the same texts or words.
    """
    for name, own, clean in zip(names[1:], labels[1:], cleaned[1:], strict=True):
        different = labels[0].difference(own)
        if not different and labels[0].pairs != own.pairs:
            different = "only one of them was trained on pairs of texts"
        elif not different and cleaned[0] != clean:
            different = "only one of them has data.clean_html=true"
        if different:
            raise UserError(f"{names[0]} and {name} cannot vote together: {different}", "Leave one of them out.")


def voted(predictor: "Predictor", texts: Sequence[Any]) -> np.ndarray:
    """The probability of each label: calibrated if that was asked for, and the one that decides.

    That is the uncalibrated one: a temperature changes no label of one run, and thresholds were chosen for uncalibrated
    probabilities. But at temperatures of their own the mean of several runs may favour another label.

    Args:
        texts: strings, or for token tasks lists of words.

    Returns:
        (2, texts, labels), or (2, words, labels) with the words of all texts one after the other; words without a token
        have NaN. The voices of several runs count alike; a run for which a word has no token has none.
    """
    logits = (word_logits if predictor.labels.task == "token" else text_logits)(predictor, texts)
    own = np.stack([predictor.probabilities(logits), probabilities(logits, predictor.labels)])
    if not predictor.others:
        return own
    # The labels of another run may stand in another order.
    theirs = (voted(other, texts)[..., other.labels.ids_of(predictor.labels.names)] for other in predictor.others)
    voices = np.stack([own, *theirs])
    heard = ~np.isnan(voices)
    with np.errstate(invalid="ignore"):  # a word without a token for any of them
        averages = np.where(heard, voices, 0).sum(0) / heard.sum(0)
    return averages if predictor.labels.task == "multi_label" else averages[[0, 0]]


def text_logits(predictor: "Predictor", texts: Sequence[str]) -> np.ndarray:
    """The network's logits for some texts, (texts, labels); those that are cut are counted."""
    ids, offsets, lengths, rows = encode_rows(
        texts, predictor.tokenizer, predictor.max_length, predictor.labels.pairs, predictor.truncation
    )
    predictor.cut += int((lengths > predictor.max_length).sum()) if predictor.truncation != "windows" else 0
    return averaged(np.stack(predictor.row_logits(ids, offsets)), rows)


def word_logits(predictor: "Predictor", texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The network's logits for the words of some texts, (words, labels), from the first token of each.

    Words of all texts stand one after the other; those without a token have NaN.
    """
    ids, offsets, owners = encode_words(texts, predictor.tokenizer)
    windows = windows_of(offsets, predictor.tokenizer, predictor.max_length)
    logits = np.concatenate(predictor.row_logits(ids[windows.at], windows.offsets))
    read = windows.at[windows.own]  # each token in one window, and no special tokens
    starts = np.cumsum([0, *map(len, texts)])
    words = starts[np.searchsorted(offsets, read, side="right") - 1] + owners[read]
    words, first = np.unique(words, return_index=True)
    every = np.full((starts[-1], len(predictor.labels)), np.nan, dtype=logits.dtype)
    every[words] = logits[windows.own][first]
    return every

"""The texts that a `Predictor` takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.data.cleaning import clean_html
from thaw.data.pairs import joined, parted
from thaw.errors import UserError
from thaw.labels import LabelSet

Text = str | Sequence[str]
"""A text; for token tasks also a list of words; for runs trained on pairs also the two texts of a pair."""
Given = Text | Mapping[str, str]
"""A text, or a pair in the form of transformers' pipeline: ``{"text": first, "text_pair": second}``."""


def pair_of(text: Any) -> tuple[str, str]:
    """The two texts of a pair given in any of the supported forms.

    Raises:
        ValueError: when it is not a pair.
    """
    if isinstance(text, str):
        return parted(text)
    match text:
        case [str(first), str(second)] | {"text": str(first), "text_pair": str(second)}:
            return first, second
    raise ValueError(f"{text!r} is not a pair of texts")


def without_surrogates(text: str) -> str:
    """A text without lone surrogates, which are not characters and which tokenizers and files reject."""
    return text.encode("utf-8", "replace").decode("utf-8")


def as_in_training(text: Given, labels: LabelSet, clean: bool) -> Text:
    """A text in the form that training used: cleaned of HTML if training did that, and a pair as one string.

    Raises:
        UserError: when it is not a pair, and the run was trained on pairs.
        TypeError: when it is no text.
    """
    cleaned = clean_html if clean else str
    if labels.pairs:
        try:
            first, second = pair_of(text)
            return joined(cleaned(without_surrogates(first)), cleaned(without_surrogates(second)))
        except ValueError as error:
            raise UserError(str(error), "The run was trained on pairs of texts.") from None
    if isinstance(text, str):
        return cleaned(without_surrogates(text))
    match text:
        case [*words] if labels.task == "token" and all(isinstance(word, str) for word in words):
            return list(map(without_surrogates, words))
    raise TypeError(f"{text!r} is no text; lists of words are for token tasks")

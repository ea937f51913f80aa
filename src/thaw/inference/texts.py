"""The texts that a `Predictor` takes."""

from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import category

from thaw.data.cleaning import clean_html
from thaw.data.pairs import joined, parted
from thaw.errors import UserError
from thaw.labels import LabelSet

Text = str | Sequence[str]
"""A text; for token tasks also a list of words; for runs trained on pairs also the two texts of a pair."""
INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # blanks, and what only controls how others look, such as U+200B
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


def blank(text: str, pairs: bool) -> bool:
    """Whether nothing of a text, as `as_in_training` gives it, is visible; of a pair nothing of both texts."""
    return all(category(character) in INVISIBLE for character in ("".join(parted(text)) if pairs else text))


def as_in_training(text: Given, labels: LabelSet, clean: bool, place: int = 0) -> Text:
    """A text in the form that training used: cleaned of HTML if training did that, and a pair as one string.

    Args:
        place: the position of the text among those that were given, for errors.

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
            where = "" if isinstance(text, str) else f"texts[{place}]: "  # the error shows a string itself
            raise UserError(f"{where}{error}", "The run was trained on pairs of texts.") from None
    if isinstance(text, str):
        return cleaned(without_surrogates(text))
    match text:
        case [*words] if labels.task == "token" and all(isinstance(word, str) for word in words):
            return list(map(without_surrogates, words))
    raise TypeError(f"texts[{place}]: {text!r} is no text; lists of words are for token tasks")

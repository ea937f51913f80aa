"""The texts that a `Predictor` takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.data.pairs import parted

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


def whole(text: str) -> str:
    """A text without lone surrogates, which are not characters and which tokenizers and files reject."""
    return text.encode("utf-8", "replace").decode("utf-8")

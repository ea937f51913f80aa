"""Predictions of a `Predictor` for whole texts: one label, or several."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from thaw.inference.texts import blank
from thaw.inference.voting import voted

if TYPE_CHECKING:
    from thaw.inference.predictor import Predictor


def classify_texts(predictor: "Predictor", texts: Sequence[str], probabilities: bool) -> Iterator[dict[str, Any]]:
    """The label of each text with its score, or its labels; those of a blank text as `unlabelled` leaves them.

    Args:
        probabilities: also give the probability of every label.
    """
    given, deciding = voted(predictor, texts)
    # A score that the user asks for is one of those that are given.
    asked = predictor.labels.task == "multi_label" and predictor.min_score is not None
    for text, scores, decisive in zip(texts, given, given if asked else deciding, strict=True):
        by_name = dict(zip(predictor.labels.names, scores.tolist(), strict=True))
        chosen = predictor.chosen(decisive)
        result: dict[str, Any] = {"text": text}
        if isinstance(chosen, list):
            result |= {"labels": chosen, "scores": {name: by_name[name] for name in chosen}}
        else:
            result |= {"label": chosen, "score": by_name[chosen]}
        result |= {"probabilities": by_name} if probabilities else {}
        yield unlabelled(result) if blank(text, predictor.labels.pairs) else result


def unlabelled(result: dict[str, Any]) -> dict[str, Any]:
    """The result for a text of which nothing is visible, to which a network gives some label or other all the same."""
    nothing: dict[str, Any] = {"label": None, "score": None, "labels": [], "scores": {}, "probabilities": {}}
    return {key: nothing.get(key, value) for key, value in result.items()}

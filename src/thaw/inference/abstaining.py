"""Predictions that are left to people, since their score is too low (Chow 1970).

What happens to them depends on the task:

- one label per text: ``label`` is None, and the label that it would have been stands in ``guess``;
- entities: they are left out, and their words get the tag O;
- tags of words that mark no entities: the tag is None, or the word is left out of a text's ``entities``;
- several labels per text: nothing here, since the score is the threshold of each label.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from thaw.labels import LabelSet

if TYPE_CHECKING:
    from thaw.inference.predictor import Predictor


def abstaining(predictor: "Predictor", results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Predictions, each as `confident` leaves it; the predictor counts what is left to people."""
    for result in results:
        kept, sure = confident(result, predictor.labels, predictor.min_score or 0.0)
        predictor.sure += sum(sure)
        predictor.unsure += len(sure) - sum(sure)
        yield kept


def confident(result: dict[str, Any], labels: LabelSet, min_score: float) -> tuple[dict[str, Any], list[bool]]:
    """A prediction without the labels whose score is too low; all scores stay.

    Args:
        result: as a `Predictor` gives it.
        min_score: the lowest score that is high enough.

    Returns:
        (result, sure): for each label, of the text, an entity or a word, whether its score is high enough. A text
        without a score, since nothing of it is visible, is not counted.
    """
    if labels.task == "multi_label":
        return result, []
    if labels.task == "sequence":
        scores = [] if result["score"] is None else [result["score"]]
        sure = [score >= min_score for score in scores]
        labelled = {"text": result["text"], "label": result["label"] if all(sure) else None, "guess": result["label"]}
        return {**labelled, **{key: value for key, value in result.items() if key not in labelled}}, sure
    if "entities" not in result:
        scores = [score or 0.0 for score in result["scores"]]  # None: a word without a token, and so without a tag
        tags = [tag if score >= min_score else None for tag, score in zip(result["tags"], scores, strict=True)]
        return {**result, "tags": tags}, [score >= min_score for score in result["scores"] if score is not None]
    every = [(one, one["score"] >= min_score) for one in result["entities"]]
    result = {**result, "entities": [one for one, sure in every if sure]}
    if "tags" in result:
        unsure = {i for one, sure in every if not sure for i in range(one["start"], one["end"])}
        result["tags"] = ["O" if i in unsure else tag for i, tag in enumerate(result["tags"])]
    return result, [sure for _, sure in every]

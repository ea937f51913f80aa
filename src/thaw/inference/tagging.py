"""Token-level predictions of a `Predictor`: the tags of words, and the entities that they mark."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thaw.data.spans import word_spans
from thaw.inference.voting import voted
from thaw.inference.words import tagged
from thaw.labels import LabelSet

if TYPE_CHECKING:
    from thaw.inference.predictor import Predictor
    from thaw.inference.texts import Text


def tag_texts(predictor: "Predictor", texts: "Sequence[Text]") -> Iterator[dict[str, Any]]:
    """The entities of each text, or the tags of each list of words; a text is split into words as in training."""
    places = [word_spans(text, predictor.joined_by) if isinstance(text, str) else [] for text in texts]
    words = [
        [text[start:end] for start, end in own] if isinstance(text, str) else list(text)
        for text, own in zip(texts, places, strict=True)
    ]
    given, deciding = voted(predictor, words)
    best = deciding.argmax(-1)
    sure = np.take_along_axis(given, best[:, None], axis=-1)[:, 0]
    bounds = np.cumsum([len(own) for own in words])[:-1]
    for text, text_places, tags, scores in zip(
        texts, places, np.split(best, bounds), np.split(sure, bounds), strict=True
    ):
        known = zip(tags.tolist(), scores.tolist(), strict=True)
        predicted = {i: (predictor.labels.names[tag], score) for i, (tag, score) in enumerate(known) if score == score}
        if isinstance(text, str):
            yield {"text": text, "entities": _entities(text, text_places, predicted, predictor.labels)}
        else:
            yield {"words": text, **_word_tags(text, predicted, predictor.labels)}


def _word_tags(words: Sequence[str], predicted: dict[int, tuple[str, float]], labels: LabelSet) -> dict[str, Any]:
    """Tags and scores of a list of words; a word without a token has no score, and the tag O or None."""
    nothing = "O" if labels.entities else None
    tags = [predicted[i][0] if i in predicted else nothing for i in range(len(words))]
    sure = [predicted[i][1] if i in predicted else None for i in range(len(words))]
    result: dict[str, Any] = {"tags": tags, "scores": sure}
    if labels.entities:
        result["entities"] = [
            {"type": kind, "text": " ".join(words[start:end]), "start": start, "end": end,
             "score": float(np.mean([score for score in sure[start:end] if score is not None]))}
            for kind, start, end in tagged(labels, [tag or "O" for tag in tags])
        ]  # fmt: skip
    return result


def _entities(
    text: str, places: Sequence[tuple[int, int]], predicted: dict[int, tuple[str, float]], labels: LabelSet
) -> list[dict[str, Any]]:
    """Entities of a text, in characters, with the mean score of their words; words without a token are skipped."""
    read = sorted(predicted)
    result = []
    for kind, first, end in tagged(labels, [predicted[i][0] for i in read]):
        start, stop = places[read[first]][0], places[read[end - 1]][1]
        score = float(np.mean([predicted[i][1] for i in read[first:end]]))
        result.append({"type": kind, "text": text[start:stop], "start": start, "end": stop, "score": score})
    return result

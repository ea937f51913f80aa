"""What a `Predictor` says of words: their tags, and the entities that these mark."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thaw.data.encoding import special_tokens
from thaw.inference.words import find_words, split_windows, tagged
from thaw.labels import LabelSet
from thaw.metrics.entities import spans

if TYPE_CHECKING:
    from thaw.inference.predictor import Predictor, Text


def tag_texts(predictor: "Predictor", texts: "Sequence[Text]") -> Iterator[dict[str, Any]]:
    """The entities of each text, and the tags of each list of words; long ones are read in overlapping windows."""
    tokenizer, labels = predictor.tokenizer, predictor.labels
    encodings = _encodings(tokenizer, texts)
    before, after = special_tokens(tokenizer)
    room = predictor.max_length - len(before) - len(after)
    windows: list[tuple[int, int, int]] = []  # number of the text, first token, token after the last
    rows: list[np.ndarray] = []
    for i, encoding in enumerate(encodings):
        ids = encoding.ids  # a new list at each call, as are offsets and word_ids
        for start, end in split_windows(len(ids), room):
            windows.append((i, start, end))
            rows.append(np.array(before + ids[start:end] + after, dtype=np.int32))
    logits = predictor.row_logits(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
    merged = [np.zeros((len(encoding), len(labels)), dtype=np.float32) for encoding in encodings]
    reach = [np.full(len(encoding), -1) for encoding in encodings]
    for (i, start, end), own in zip(windows, logits, strict=True):
        # Where windows overlap, a token takes its logits from the window that shows more context around it.
        edges = np.minimum(np.arange(end - start), np.arange(end - start)[::-1])
        better = edges > reach[i][start:end]
        merged[i][start:end][better] = own[len(before) : len(before) + end - start][better]
        reach[i][start:end][better] = edges[better]
    for text, encoding, own in zip(texts, encodings, merged, strict=True):
        scores = predictor.probabilities(own) if len(own) else own
        if isinstance(text, str):
            yield {"text": text, "entities": _entities(text, encoding, scores, labels, predictor.joined_by)}
        else:
            yield {"words": text, **_word_tags(text, encoding.word_ids, scores, labels)}


def divided(predictor: "Predictor", text: str) -> list[str]:
    """The words that a text is divided into."""
    (encoding,) = _encodings(predictor.tokenizer, [text])
    offsets = encoding.offsets
    found = find_words(text, encoding.word_ids, offsets, predictor.joined_by)
    return [text[offsets[first][0] : offsets[last][1]].strip() for first, last in found]


def _encodings(tokenizer: Any, texts: "Sequence[Text]") -> list[Any]:
    """Those of the tokenizer, without special tokens."""
    found: list[Any] = [None] * len(texts)
    for words in (False, True):
        rows = [i for i, text in enumerate(texts) if isinstance(text, str) != words]
        options = {"is_split_into_words": words, "add_special_tokens": False, "return_attention_mask": False}
        encoded = tokenizer([texts[i] for i in rows], verbose=False, **options).encodings if rows else []
        for i, encoding in zip(rows, encoded, strict=True):
            found[i] = encoding
    return found


def _word_tags(words: Sequence[str], owners: Sequence[int], scores: np.ndarray, labels: LabelSet) -> dict[str, Any]:
    """The tags of words that are given; one of which no token is left has what was not read in training."""
    first = {word: token for token, word in reversed(list(enumerate(owners)))}
    best = {word: int(scores[token].argmax()) for word, token in first.items()}
    nothing = "O" if labels.entities else None
    tags = [labels.names[best[i]] if i in best else nothing for i in range(len(words))]
    sure = [float(scores[first[i], best[i]]) if i in best else None for i in range(len(words))]
    result: dict[str, Any] = {"tags": tags, "scores": sure}
    if labels.entities:
        result["entities"] = [
            {"type": kind, "text": " ".join(words[start:end]), "start": start, "end": end,
             "score": float(np.mean([score for score in sure[start:end] if score is not None]))}
            for kind, start, end in spans([tag or "O" for tag in tags])
        ]  # fmt: skip
    return result


def _entities(text: str, encoding: Any, scores: np.ndarray, labels: LabelSet, joined_by: str) -> list[dict[str, Any]]:
    """Entities of one text: the first sub-token speaks for its word, the mean of the words for the entity."""
    offsets = encoding.offsets
    found = find_words(text, encoding.word_ids, offsets, joined_by)
    own = scores[[first for first, _ in found]]
    sure = own.max(-1)
    result = []
    for kind, first, end in tagged(labels, own.argmax(-1)):
        start, stop = offsets[found[first][0]][0], offsets[found[end - 1][1]][1]
        name = text[start:stop].strip()  # some tokenizers count the blank before a word to it
        start = text.index(name, start)
        score = float(sure[first:end].mean())
        result.append({"type": kind, "text": name, "start": start, "end": start + len(name), "score": score})
    return result

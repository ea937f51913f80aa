"""Explains predictions: from texts to words and targets, and from attributions to plain dicts and pages."""

import itertools
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw.data.pairs import BETWEEN, joined, parted, shares
from thaw.data.ragged import flattened
from thaw.data.spans import PARTS, is_punctuation, word_spans
from thaw.data.tokenizing import cut, encodings, pair_tokens, special_tokens
from thaw.files import write_jsonl
from thaw.inference.attribution import Attribution, attribute, check_method
from thaw.inference.masking import Reading, Target
from thaw.inference.predictor import Predictor
from thaw.inference.texts import Text, blank
from thaw.inference.words import tagged
from thaw.reporting.explanations import write_explanations
from thaw.reporting.predictions import row_text
from thaw.reporting.progress import counting
from thaw.reporting.reading import rows_to_explain
from thaw.reporting.run_page import explanations_path
from thaw.runs import display

TARGETS = 10  # so many of the most probable labels of a text are explained
CHUNK = 32  # texts that are explained at once
SHOWN = 50  # texts on the page of predict.py
JOINERS = "'’-."

Span = tuple[int, int]
Words = list[tuple[Span, np.ndarray]]
"""Words, each with its character span and the places of its tokens."""


def explain(
    predictor: Predictor, texts: Iterable[Text], method: str, evaluations: int = 200
) -> Iterator[dict[str, Any]]:
    """The explanation of each text, lazily and in order.

    Args:
        texts: strings, or for token tasks lists of words.
        method: ``shap``, ``integrated_gradients`` or ``leave_one_out``.
        evaluations: forward passes that SHAP may spend on each text.

    Returns:
        Dicts with ``method``; ``words`` (start and end of each, in characters; lists of words are joined by spaces);
        ``unread`` (start and end, in characters, of each part that was cut off); and ``targets``. Each label, or
        predicted entity, has ``name``, ``probability``, ``score`` and ``baseline`` (log-odds of the text, and with
        every word hidden), ``values`` (log-odds that each word adds), ``gap`` (by how much the values differ from score
        minus baseline), ``comprehensiveness`` and ``sufficiency``. An entity also has ``start`` and ``end``.
    """
    check_method(method, gradients=predictor.network is not None, runs=1 + len(predictor.others))
    waiting = iter(texts)
    while chunk := list(itertools.islice(waiting, CHUNK)):
        readings = read(predictor, chunk)
        for reading, found in zip(readings, attribute(predictor, readings, method, evaluations), strict=True):
            yield described(reading, found, method)


def described(reading: Reading, found: Attribution, method: str) -> dict[str, Any]:
    """An explanation in plain containers."""
    targets = []
    for i, target in enumerate(reading.targets):
        score, baseline, values = found.scores[i], found.baselines[i], found.values[i]
        figures = {
            "probability": found.probabilities[i],
            "score": score,
            "baseline": baseline,
            "gap": values.sum() - (score - baseline),
            "comprehensiveness": found.comprehensiveness[i],
            "sufficiency": found.sufficiency[i],
        }
        targets.append({
            "name": target.name,
            **(dict(zip(("start", "end"), target.span, strict=True)) if target.span else {}),
            **{name: round(float(value), 6) for name, value in figures.items()},
            "values": [round(float(value), 6) for value in values],
        })  # fmt: skip
    return {
        "method": method,
        "words": [list(word) for word in reading.words],
        "unread": [list(part) for part in reading.unread],
        "targets": targets,
    }


def read(predictor: Predictor, texts: Sequence[Text]) -> list[Reading]:
    """Texts as the network reads them, with the targets to explain.

    Texts beyond the maximum length are cut, in token tasks as well.
    """
    frame = (pair_tokens if predictor.labels.pairs else special_tokens)(predictor.tokenizer)
    rows = [_row(predictor, text, frame) for text in texts]
    logits = predictor.row_logits(*flattened([ids for ids, _, _ in rows]))
    return [_reading(predictor, *row, own) for row, own in zip(rows, logits, strict=True)]


def _row(predictor: Predictor, text: Text, frame: Sequence[list[int]]) -> tuple[np.ndarray, Words, list[Span]]:
    """The token ids of a text between special ones, its words that are read, and the spans of what is cut off."""
    room = predictor.max_length - sum(map(len, frame))
    parts = parts_of(predictor, text)
    lengths = [len(own_ids) for own_ids, _ in parts]
    rooms = shares(lengths[0], lengths[-1], room) if predictor.labels.pairs else (room,)
    row, kept, unread = list(frame[0]), Words(), list[Span]()
    for (own_ids, words), own_room, following in zip(parts, rooms, frame[1:], strict=True):
        left = cut(list(range(len(own_ids))), own_room, predictor.truncation)
        at = np.full(len(own_ids), -1)  # the place of each token in the row
        at[left] = len(row) + np.arange(len(left))
        placed = [(span, at[tokens][at[tokens] >= 0]) for span, tokens in words]
        kept += [(span, tokens) for span, tokens in placed if len(tokens)]
        if lost := [span for span, tokens in placed if not len(tokens)]:
            unread.append((lost[0][0], lost[-1][1]))
        row += [own_ids[i] for i in left] + following
    return np.array(row), kept, unread


def _reading(predictor: Predictor, ids: np.ndarray, words: Words, unread: list[Span], logits: np.ndarray) -> Reading:
    """What `_row` gives, with the targets that the logits of the text suggest."""
    labels, spans, owner = predictor.labels, [span for span, _ in words], np.full(len(ids), -1)
    for word, (_, tokens) in enumerate(words):
        owner[tokens] = word
    if labels.task != "token":
        chosen = np.argsort(-logits, kind="stable")[:TARGETS]
        targets = [Target(labels.names[i], np.array([0]), np.array([i])) for i in chosen]
        return Reading(ids, owner, spans, unread, np.empty(0, dtype=np.int64), targets)
    at = np.array([tokens[0] for _, tokens in words], dtype=np.int64)
    best, sure = logits[at].argmax(-1), predictor.probabilities(logits[at]).max(-1)
    targets = [
        Target(kind, np.arange(first, last), best[first:last], (spans[first][0], spans[last - 1][1]))
        for kind, first, last in tagged(labels, [labels.names[i] for i in best])
        if sure[first:last].mean() >= (predictor.min_score or 0)
    ]
    return Reading(ids, owner, spans, unread, at, targets)


def parts_of(predictor: Predictor, text: Text) -> list[tuple[list[int], Words]]:
    """The token ids of a text, without special tokens, and its words, each with its character span and token positions.

    Lists of words stay as they are. A text is split into words as the predictor does it in token tasks, otherwise by
    `split_words`. Words without a token are left out. Both texts of a pair are given.
    """
    if predictor.labels.task == "token":
        if isinstance(text, str):
            whole, spans = text, word_spans(text, predictor.joined_by)
        else:
            whole, ends = " ".join(text), np.cumsum([len(word) + 1 for word in text]) - 1
            spans = [(int(end) - len(word), int(end)) for word, end in zip(text, ends, strict=True)]
        words = [whole[start:end] for start, end in spans]
        encoding = encodings(predictor.tokenizer, [words], words=True)[0]
        return [(encoding.ids, _with_tokens(spans, np.array(encoding.word_ids, dtype=np.int64)))]
    whole = text if isinstance(text, str) else joined(*text)
    parts, start = [], 0
    for part in parted(whole) if predictor.labels.pairs else [whole]:
        encoding = encodings(predictor.tokenizer, [part])[0]
        spans, owner = _words_of_text(part, encoding)
        parts.append((encoding.ids, _with_tokens([(start + first, start + last) for first, last in spans], owner)))
        start += len(part) + len(BETWEEN)
    return parts


def _with_tokens(spans: list[Span], owner: np.ndarray) -> Words:
    parts = [(span, np.flatnonzero(owner == word)) for word, span in enumerate(spans)]
    return [(span, tokens) for span, tokens in parts if len(tokens)]


def _words_of_text(text: str, encoding: Any) -> tuple[list[Span], np.ndarray]:
    spans = split_words(text)
    owner = np.full(len(encoding.offsets), -1)
    for token, place in enumerate(encoding.offsets):
        start = first_character(text, *place)
        word = bisect_right(spans, start, key=lambda span: span[0]) - 1
        if word >= 0 and start < spans[word][1]:
            owner[token] = word
    return spans, owner


def split_words(text: str) -> list[Span]:
    """Start and end of each word, and of the punctuation between words, in characters.

    An apostrophe, hyphen or full stop within a word belongs to it.
    """
    found = []
    for chunk in PARTS.finditer(text):
        marks = [is_punctuation(character) for character in chunk[0]]
        for i in range(1, len(marks) - 1):
            if chunk[0][i] in JOINERS and not (marks[i - 1] or marks[i + 1]):
                marks[i] = False
        for _, group in itertools.groupby(range(len(marks)), marks.__getitem__):
            places = list(group)
            found.append((chunk.start() + places[0], chunk.start() + places[-1] + 1))
    return found


def first_character(text: str, start: int, end: int) -> int:
    """The first character of a token other than white space; some tokenizers include the space before a word."""
    return end - len(text[start:end].lstrip())


def explained(
    predictor: Predictor, results: Iterable[dict[str, Any]], run: str, method: str, evaluations: int, page: str
) -> Iterator[dict[str, Any]]:
    """Predictions, each with its ``explanation``; a page shows the first ones.

    Args:
        results: as ``Predictor.stream`` gives them.
        run: the run, as named on the page.
        page: the file that is written at the end.
    """
    read, kept = itertools.tee(results)  # tee buffers what is read ahead of the explanations
    texts = (result["text"] if "text" in result else result["words"] for result in read)
    shown: list[dict[str, Any]] = []
    for result, found in zip(kept, explain(predictor, texts, method, evaluations), strict=True):
        if blank(row_text(result), predictor.labels.pairs):
            found["targets"] = []  # it has no label to explain
        if len(shown) < SHOWN:
            shown.append({"text": row_text(result), "explanation": found})
        yield {**result, "explanation": found}
    path = Path(page).expanduser().absolute()
    write_explanations(path, method, f"Of {run}.", shown)
    print(f"Explanations  {display(path)}", file=sys.stderr)


def explain_rows(
    run: Path, split: str, predictor: Predictor, predictions: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> None:
    """Explain the rows of a split that are worth reading; write ``explanations.jsonl`` and a page.

    Args:
        predictions: a dict for each row, as in ``predictions/``.
        settings: ``explain``, ``explain_rows`` and ``explain_evaluations`` of ``evaluate.py``.
    """
    method, labels = settings["explain"], predictor.labels
    chosen = rows_to_explain(predictions, labels, predictor.thresholds, settings["explain_rows"])
    texts = [predictions[i].get("words") or predictions[i]["text"] for i in chosen]
    items = []
    with counting(len(chosen), f"explaining {split}") as progress:
        found = explain(predictor, texts, method, settings["explain_evaluations"])
        for (i, why), explanation in zip(chosen.items(), found, strict=True):
            row = {
                key: value for key, value in predictions[i].items() if key in ("place", "words", "label", "predicted")
            }
            text = row_text(predictions[i])
            items.append({"row": i + 1, "why": why, "text": text, **row, "explanation": explanation})
            progress(1)
    path = explanations_path(run, split)
    write_jsonl(path.with_suffix(".jsonl"), items)
    write_explanations(path, method, f"{len(items)} rows of {split}, of {display(run)}.", items)

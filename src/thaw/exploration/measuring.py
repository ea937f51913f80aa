"""The contents of the page about a data set, as plain containers."""

import time
from collections import Counter
from typing import Any

import numpy as np

from thaw.data.duplicates import SIMILAR, near_duplicates, signatures
from thaw.data.module import TextDataModule
from thaw.data.rows import CHUNK
from thaw.data.splits import text_keys
from thaw.data.stratified import first_rows
from thaw.data.survey import WORD, box, entity_survey, truncation_curve, vocabulary, words_of
from thaw.exploration.rows import AllRows
from thaw.metrics.label_noise import FOLDS, suspicious_labels
from thaw.reporting.progress import counting
from thaw.sampling import evenly

VOCABULARY_ROWS = 200_000  # at most so many training rows have their words counted
NOISE_ROWS = 20_000  # at most so many training rows, with at most NOISE_WORDS words, are checked for label noise,
NOISE_WORDS = 2_000_000  # which takes tens of seconds
LISTED = 20  # repeated texts, near duplicates, suspicious labels
MEMBERS = 6  # rows listed for a repeated text
EXAMPLES = 3  # for each class


def measure(data: TextDataModule, limit: int) -> dict[str, Any]:
    """Everything that the page shows except the encoder's features.

    Args:
        data: prepared.
        limit: the maximum length of the encoder.
    """
    rows, labels, seconds = AllRows(data), data.labels, {}
    clock = time.perf_counter()

    def done(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[name], clock = round(now - clock, 2), now

    result: dict[str, Any] = {
        "task": labels.task,
        "entities": labels.entities,
        "max_length": data.max_length,
        "limit": limit,
        "data": data.summary,
    }
    result |= count_words(rows)
    tokens = np.concatenate([data.encoded[name].lengths for name in rows.names])
    result["truncation"] = truncation_curve(tokens, limit)
    done("lengths and words")
    result |= find_duplicates(rows)
    done("duplicates")
    words = result["vocabulary"]["running"] / result["vocabulary"]["rows"]
    result["noise"] = find_noise(rows, min(NOISE_ROWS, int(NOISE_WORDS / max(words, 1))))
    done("label noise")
    if labels.entities:
        training = np.arange(len(data.rows["train"]))
        result["surfaces"] = entity_survey(rows.stream(training), rows.label_ids("train"), labels)
    result["examples"] = examples(rows)
    done("examples")
    return {**result, "seconds": seconds}


def count_words(rows: AllRows) -> dict[str, Any]:
    """Words and tokens of each text by class (by split for token tasks), and how the tokenizer splits the words."""
    data, labels = rows.data, rows.labels
    training = len(data.rows["train"])
    step = max(-(-training // VOCABULARY_ROWS), 1)
    counts: Counter[str] = Counter()
    words = np.empty(len(rows), dtype=np.int32)
    with counting(len(rows), "counting words") as progress:
        for i, text in enumerate(rows.stream()):
            of_text = words_of(text)
            words[i] = len(of_text)
            if i < training and i % step == 0:
                counts.update(word for word in of_text if WORD.search(word))
            if i % CHUNK == CHUNK - 1:
                progress(CHUNK)
    groups = {}
    if labels.task == "token":
        for name, first, last in zip(rows.names, rows.starts, rows.starts[1:], strict=False):
            groups[name] = (words[first:last], data.encoded[name].lengths)
    else:
        gold, tokens = data.encoded["train"].labels, data.encoded["train"].lengths
        for i, name in enumerate(labels.names):
            members = np.flatnonzero(gold == i if labels.task == "sequence" else gold[:, i])
            if len(members):
                groups[name] = (words[members], tokens[members])
    ids = [data.encoded[name].ids for name in rows.names]
    unknown = sum(int(np.count_nonzero(of_split == data.tokenizer.unk_token_id)) for of_split in ids)
    return {
        "lengths": {
            "by": "split" if labels.task == "token" else "class",
            "words": {name: box(in_words) for name, (in_words, _) in groups.items()},
            "tokens": {name: box(in_tokens) for name, (_, in_tokens) in groups.items()},
        },
        "vocabulary": {
            **vocabulary(counts, data.tokenizer_for("token")),
            "rows": -(-training // step),
            "of": training,
            "unknown_tokens": unknown / sum(map(len, ids)),
        },
    }


def find_duplicates(rows: AllRows) -> dict[str, Any]:
    """Texts that occur more than once, verbatim or nearly, within a split or across splits."""
    first, numbers = first_rows(text_keys(rows.stream())), np.arange(len(rows))
    labels, splits = rows.label_keys(), rows.splits(numbers)
    distinct = np.flatnonzero(first == numbers)
    return {"duplicates": _repeated(rows, first, labels, splits), "near": _near(rows, distinct, labels, splits)}


def _repeated(rows: AllRows, first: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> dict[str, Any]:
    """Texts that occur more than once; ``first`` gives for each row the first one with the same text."""
    repeated = np.flatnonzero(first != np.arange(len(rows)))
    origin = first[repeated]
    groups, size = np.unique(origin, return_counts=True)
    crossing = np.unique(origin[splits[repeated] != splits[origin]])
    contrary = np.unique(origin[labels[repeated] != labels[origin]])
    listed = []
    for group in groups[np.lexsort((-size, ~np.isin(groups, crossing), ~np.isin(groups, contrary)))][:LISTED]:
        others = repeated[origin == group]
        alike = (splits[others] == splits[group]).astype(int) + (labels[others] == labels[group])
        members = [group, *others[np.argsort(alike, kind="stable")][: MEMBERS - 1]]  # the most different ones first
        listed.append({"rows": len(others) + 1, "members": [rows.described(int(i)) for i in members]})
    counts = {"rows": len(repeated), "groups": len(groups), "across": len(crossing), "contrary": len(contrary)}
    return {**counts, "listed": listed}


def _near(rows: AllRows, distinct: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> dict[str, Any]:
    """Pairs of texts that are nearly the same; ``distinct`` are the rows to compare, one for each text."""
    bands = []
    with counting(len(distinct), "near duplicates") as progress:
        for part in signatures(rows.stream(distinct)):
            bands.append(part)
            progress(len(part))
    found, alike, left = near_duplicates(np.concatenate(bands), lambda chosen: list(rows.stream(distinct[chosen])))
    pairs = distinct[found]
    across = splits[pairs[:, 0]] != splits[pairs[:, 1]]
    contrary = labels[pairs[:, 0]] != labels[pairs[:, 1]]
    return {
        "rows": len(np.unique(pairs)),
        "pairs": len(pairs),
        "across": int(across.sum()),
        "contrary": int(contrary.sum()),
        "not_compared": left,
        "threshold": SIMILAR,
        "listed": [
            {"similarity": round(float(alike[i]), 3), "members": [rows.described(int(k)) for k in pairs[i]]}
            for i in np.lexsort((-alike, ~contrary, ~across))[:LISTED]
        ],
    }


def find_noise(rows: AllRows, most: int) -> dict[str, Any]:
    """Training rows whose label contradicts a simple model of the other rows; of more than ``most``, an even sample."""
    train = rows.data.rows["train"]
    chosen = evenly(len(train), most)
    part = train.select(chosen)
    found = suspicious_labels(part["text"][:], part["label"][:], rows.labels)
    listed = [{**rows.described(int(chosen[suspect["row"]])), **_shown(suspect)} for suspect in found[:LISTED]]
    return {"found": len(found), "rows": len(chosen), "of": len(train), "folds": FOLDS, "listed": listed}


def _shown(suspect: dict[str, Any]) -> dict[str, Any]:
    """What the page shows about a suspicious label, besides its row."""
    shown = {"label_here": suspect["label"], "suggested": suspect["suggested"]}
    shown |= {name: round(suspect[name], 4) for name in ("own", "sure")}
    return shown | ({"word": suspect["word"]} if "word" in suspect else {})


def examples(rows: AllRows) -> dict[str, list[dict[str, Any]]]:
    """Training rows of each class, or of each type of entity, evenly spread."""
    encoded, labels = rows.data.encoded["train"], rows.labels
    found: dict[str, list[dict[str, Any]]] = {}
    for i, name in enumerate(labels.names):
        if labels.task == "token":
            if name.startswith("I-") or i == labels.outside:
                continue
            words = np.flatnonzero(encoded.tags == i)
            members = np.unique(np.searchsorted(encoded.tag_offsets, words, side="right") - 1)
            name = name.removeprefix("B-")
        else:
            members = np.flatnonzero(encoded.labels == i if labels.task == "sequence" else encoded.labels[:, i])
        if len(members):
            found[name] = [rows.described(int(k)) for k in members[evenly(len(members), EXAMPLES)]]
    return found

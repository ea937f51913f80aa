"""What a user checks before trusting a run: rows, labels, lengths, duplicates and skipped rows."""

from collections import Counter
from typing import Any

import numpy as np

from thaw.data import splits
from thaw.data.cleaning import clean_html
from thaw.data.encoding import Encoded
from thaw.data.rows import Values
from thaw.data.sources import Source
from thaw.labels import LabelSet
from thaw.sampling import evenly

SAMPLE = 2_000  # texts looked at for what needs no exact figure
SPECIAL = 2  # tokens that most encoders add to a text
SHOWN = 20  # skipped rows, and odd entities, listed in the summary; all are counted


def label_counts(rows: Any, labels: LabelSet) -> tuple[int, ...]:
    """How many rows, or words, have each label."""
    column = rows["label"][:]
    ids = column if labels.task == "sequence" else (one for row in column for one in row)
    found = Counter(ids)
    return tuple(found[i] for i in range(len(labels)))


def summarise(
    rows: dict[str, Any],
    encoded: dict[str, Encoded],
    labels: LabelSet,
    source: Source,
    truncation: str,
    fold: int | None,
) -> dict[str, Any]:
    """The figures that a user checks before trusting a run, as plain containers.

    Args:
        truncation, fold: the settings of these names.
    """
    windows = labels.task == "token" or truncation == "windows"  # long texts are not truncated
    single = labels.task != "token" and not labels.pairs
    keys, prints = {}, {}
    for name, split in rows.items():
        texts = Values(split, "text")
        keys[name], prints[name] = splits.text_keys(texts), splits.rows_fingerprint(texts, Values(split, "label"))
    names = list(rows)
    grouped = splits.GROUP in rows["train"].column_names
    groups = {name: splits.groups_in(split) for name, split in rows.items()} if grouped else {}
    skipped = Counter(split for split, _, _ in source.skipped)
    return {
        "files": source.files,
        "task": labels.task,
        "labels": list(labels.names),
        "label_order": labels.order,
        "splits": {
            name: {
                "rows": len(rows[name]),
                "labels": dict(zip(labels.names, label_counts(rows[name], labels), strict=True)),
                "tokens": _lengths(encoded[name].lengths),
                "windowed" if windows else "truncated": encoded[name].too_long,
                "repeated": splits.repeated(keys[name]),
                **_odd(rows[name], encoded[name], labels),
                **({"groups": len(groups[name][0]) + groups[name][1]} if groups else {}),
                "fingerprint": prints[name],
                "places": splits.places_fingerprint(rows[name]),
            }
            for name in names
        },
        "shared": [
            {
                "in": later,
                "also_in": earlier,
                "rows": splits.shared(keys[later], keys[earlier]),
                **({"groups": len(groups[later][0] & groups[earlier][0])} if groups else {}),
            }
            for i, earlier in enumerate(names)
            for later in names[i + 1 :]
        ],
        "skipped": dict(skipped),
        "skipped_rows": [f"{place}: {problem}" for _, place, problem in source.skipped[:SHOWN]],
        **_looks(rows["train"], encoded["train"]),
        "inside_words": len(source.inside),
        "inside_words_rows": [f"{marked!r} ({place})" for _, place, marked in source.inside[:SHOWN]],
        "corrected": sum(source.corrected.values()),
        "fold": fold,
        "truncation": truncation if single else None,  # pairs are cut at the end, words not at all
    }


def _odd(rows: Any, encoded: Encoded, labels: LabelSet) -> dict[str, int]:
    """Token tasks: words that the tokenizer leaves nothing of. Multi-label tasks: rows without any label."""
    if labels.task == "token":
        return {"tokenless": len(encoded.tags) - int((np.asarray(encoded.words) >= 0).sum())}
    return {"unlabelled": sum(not own for own in rows["label"][:])} if labels.task == "multi_label" else {}


def _looks(rows: Any, encoded: Encoded) -> dict[str, float]:
    """Of an even sample of texts, the share that cleaning would change, and the tokens for each word."""
    at = evenly(len(rows), SAMPLE)
    texts = rows.select(at)["text"][:]
    words = sum(len(text if isinstance(text, list) else text.split()) for text in texts)
    html = [isinstance(text, str) and clean_html(text) != " ".join(text.split()) for text in texts]
    pieces = int(encoded.lengths[at].sum()) - SPECIAL * len(texts)
    return {"html": round(float(np.mean(html)), 3), "tokens_per_word": round(pieces / max(words, 1), 2)}


def _lengths(lengths: np.ndarray) -> dict[str, float]:
    return {
        "mean": round(float(lengths.mean()), 1),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }

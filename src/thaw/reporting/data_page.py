"""``data.html``: what there is to know about a data set before training, as one self-contained page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw.labels import LabelSet
from thaw.reporting import advice, data_plots, plots, summary
from thaw.reporting.drawing import visible
from thaw.reporting.html import write_html
from thaw.reporting.reading import marked_parts

WORDS = 12  # in each list on the console
LONGEST_PIECE = 40  # characters of a piece on the console


def write_page(path: Path, result: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        result: as in ``data.json``.
    """
    write_html(path, "data.html", {**_context(result), "result": result})


def _context(result: Mapping[str, Any]) -> dict[str, Any]:
    data, token = result["data"], result["task"] == "token"
    labels = LabelSet(result["task"], tuple(data["labels"]), (0,) * len(data["labels"]))
    splits, vocabulary = data["splits"], result["vocabulary"]
    surfaces, features = result.get("surfaces"), result.get("features")
    _, header, rows = summary.data_tables(data)[0]
    return {
        "title": f"{result['name']}, seen by {Path(result['model']).name}",
        "unit": "sentences" if token else "texts",
        "data_header": header,
        "data_rows": [*rows, ["fingerprint", *(split["fingerprint"] for split in splits.values())]],
        "label_header": ["label", *splits],
        "label_rows": [[name, *(f"{split['labels'][name]:,}" for split in splits.values())] for name in labels.names],
        "notes": advice.notes(data),
        "left_out": advice.left_out(data),
        "class_picture": _class_picture(result),
        "length_pictures": _length_pictures(result),
        "words": [
            ("Cost the most pieces", "Frequent words that are split.", vocabulary["costly"]),
            ("In the most pieces", "Names, compounds, misspellings, web addresses.", vocabulary["longest"]),
            ("Unknown", "Words with a piece that the vocabulary lacks: the encoder cannot tell them apart.",
             vocabulary["unknowns"]),
        ],
        "facts": vocabulary_rows(vocabulary),
        "exact": [_with_parts(group, labels) for group in result["duplicates"]["listed"]],
        "least": at_least(result["near"]),
        "near": [_with_parts(pair, labels) for pair in result["near"]["listed"]],
        "noise": [_suspect(row, labels) for row in result["noise"]["listed"]],
        "examples": {name: [_row(row, labels) for row in listed] for name, listed in result["examples"].items()},
        "surfaces": surfaces,
        "entity_pictures": [data_plots.entity_lengths(surfaces["types"])] if surfaces and surfaces["types"] else [],
        "features": features,
        "probes": _probes(features, labels) if features else {},
    }  # fmt: skip


def _class_picture(result: Mapping[str, Any]) -> str:
    counts = {name: split["labels"] for name, split in result["data"]["splits"].items()}
    if not result["entities"]:
        return data_plots.class_bars(counts, "words" if result["task"] == "token" else "rows")
    # Each entity has one B- tag.
    entities = {
        split: {tag[2:]: count for tag, count in tags.items() if tag.startswith("B-")} for split, tags in counts.items()
    }
    return data_plots.class_bars(entities, "entities")


def _length_pictures(result: Mapping[str, Any]) -> list[str]:
    lengths, max_length = result["lengths"], result["max_length"]
    return [
        data_plots.length_boxes(lengths["words"], "words", lengths["by"]),
        data_plots.length_boxes(lengths["tokens"], "tokens", lengths["by"], max_length),
        data_plots.truncation(result["truncation"], max_length, result["task"] == "token"),
    ]


def _probes(features: Mapping[str, Any], labels: LabelSet) -> dict[str, Any]:
    """Pictures of how well the encoder separates the classes."""
    gold = np.array(features["labels"])
    return {
        "confusion": plots.confusion(np.array(features["confusion"]), labels.names),
        "projections": [
            data_plots.scatter(np.array(points), gold, labels.names, name)
            for name, points in features["projections"].items()
        ],
    }


def _row(row: Mapping[str, Any], labels: LabelSet, word: int | None = None) -> dict[str, Any]:
    """A row with its text in parts, in which entities are marked."""
    if "words" not in row:
        return {**row, "parts": [{"text": row["text"], "kind": "", "label": ""}]}
    parts = marked_parts({"words": row["words"], "label": row["label"], "predicted": row["label"]}, labels, word)
    return {**row, "parts": parts, "label": ""}


def _with_parts(group: Mapping[str, Any], labels: LabelSet) -> dict[str, Any]:
    """A group of similar texts; one that looks the same as the one before is flagged, and not shown again."""
    members = [_row(row, labels) for row in group["members"]]
    for before, row in zip([None, *members], members, strict=False):
        row["again"] = before is not None and before["parts"] == row["parts"]
    return {**group, "members": members}


def _suspect(row: Mapping[str, Any], labels: LabelSet) -> dict[str, Any]:
    shown = _row(row, labels, row.get("word"))
    return {**shown, "subject": row["words"][row["word"]] if "word" in row else ""}


def vocabulary_rows(vocabulary: Mapping[str, Any]) -> list[list[str]]:
    """How the tokenizer splits the words of the training texts."""
    return [
        ["words", f"{vocabulary['running']:,}"],
        ["different words", f"{vocabulary['distinct']:,}"],
        ["words that are one piece", f"{vocabulary['one_piece']:.1%}"],
        ["different words that are one piece", f"{vocabulary['distinct_one_piece']:.1%}"],
        ["pieces for each word", f"{vocabulary['pieces']:.3f}"],
        ["words with unknown pieces", f"{vocabulary['unknown']:.3%}"],
        ["unknown tokens, of those that are read", f"{vocabulary['unknown_tokens']:.3%}"],
    ]


def at_least(near: Mapping[str, Any]) -> str:
    """``at least``, for numbers of near duplicates: among more than three similar rows, not all pairs are compared."""
    return "at least " if near["rows"] > 3 else ""


def console(result: Mapping[str, Any]) -> list[str]:
    """The summary for the terminal: tables, and lines about problems."""
    data, exact, near, noise = result["data"], result["duplicates"], result["near"], result["noise"]
    lengths = result["lengths"]
    boxes = [
        [name, *(f"{box[key]:g}" for box in (own, lengths["tokens"][name]) for key in ("median", "high"))]
        for name, own in lengths["words"].items()
    ]
    header = [lengths["by"], "words, median", "words, 95 %", "tokens, median", "tokens, 95 %"]
    costly = ", ".join(visible("·".join(row["pieces"])) for row in result["vocabulary"]["costly"][:WORDS])
    of = " of words" if result["task"] == "token" else ""
    findings = [
        ["repeated texts", f"{exact['rows']:,}"],
        ["texts in several splits", f"{exact['across']:,}"],
        ["repeated texts with different labels", f"{exact['contrary']:,}"],
        ["texts with a near duplicate", f"{at_least(near)}{near['rows']:,}"],
        ["pairs of near duplicates across splits", f"{at_least(near)}{near['across']:,}"],
        [f"suspicious labels{of}, of {noise['rows']:,} training rows", f"{noise['found']:,}"],
    ]
    lines = [summary.table(*table) for table in summary.data_tables(data)]
    lines += [summary.table("Lengths", header, boxes[: summary.SHOWN_LABELS])]
    lines += [summary.table("Vocabulary", ["", "training rows"], vocabulary_rows(result["vocabulary"]))]
    lines += [f"Most split: {costly}"] if costly else []
    if surfaces := result.get("surfaces"):
        rows = [[kind, f"{own['count']:,}", f"{own['distinct']:,}", ", ".join(form for form, _ in own["surfaces"][:4])]
                for kind, own in surfaces["types"].items()]  # fmt: skip
        lines.append(summary.table("Entities", ["type", "entities", "forms", "most frequent"], rows))
    lines.append(summary.table("Duplicates and labels", ["", "found"], findings))
    if features := result.get("features"):
        names = {"accuracy": "accuracy", "macro F1": "f1_macro", "accuracy of the majority class": "majority"}
        rows = [[name, summary.number(features[key])] for name, key in names.items()]
        lines.append(summary.table(f"Linear probe of {features['pooling']} vectors", ["", "validation"], rows))
    if notes := advice.notes(data):
        lines.append("\n" + "\n".join(f"note: {visible(line)}" for line in notes))
    return lines + [f"skipped {line}" for line in advice.left_out(data)]


def pieces_table(text: str, pieces: Sequence[Mapping[str, Any]], max_length: int) -> str:
    """How a text is split, for the terminal."""
    rows = []
    for i, piece in enumerate(pieces):
        place = "" if piece["special"] else f"{piece['start']}–{piece['end']}"
        notes = [name for name in ("special", "unknown", "cut") if piece[name]]
        shown = [piece["piece"][:LONGEST_PIECE], "" if piece["special"] else text[piece["start"] : piece["end"]]]
        word = "" if piece["word"] is None or piece["special"] else str(piece["word"])
        rows.append([str(i), *map(visible, shown), str(piece["id"]), place, word, ", ".join(notes)])
    cut = sum(piece["cut"] for piece in pieces)
    said = f"{cut} of {len(pieces)} tokens are cut off at max_length={max_length}." if cut else (
        f"{len(pieces)} tokens; max_length={max_length} cuts none."
    )  # fmt: skip
    return summary.table("Pieces", ["", "piece", "text", "id", "characters", "word", ""], rows) + f"\n{said}"

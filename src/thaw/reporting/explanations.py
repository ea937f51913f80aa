"""Shows explanations on a page and in the terminal: words are coloured by what they add to the score."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.style import Style
from rich.text import Text

from thaw.reporting.drawing import BLUE, ORANGE, visible
from thaw.reporting.html import write_html
from thaw.reporting.summary import number

FAINT = 0.04  # share of the strongest value in a text below which words are not coloured
STRONGEST = 4  # words listed with their values
METHODS = {
    "shap": "SHAP: Owen values, by the partition explainer of the shap library (Lundberg and Lee 2017)",
    "integrated_gradients": "Integrated gradients on the embeddings, in 50 steps (Sundararajan et al. 2017)",
    "leave_one_out": "Leave-one-out: what the score loses when this one word is hidden",
}

Item = dict[str, Any]
"""A text with its ``explanation``; if known, also ``row`` (from 1), ``place``, ``why``, ``label``, ``predicted``."""


def write_explanations(path: Path, method: str, subtitle: str, items: Sequence[Item]) -> None:
    """Write a page of explanations.

    Args:
        method: the method of all of them.
        subtitle: which texts are explained.
        items: with ``text`` and ``explanation``, as `thaw.inference.explanation.explain` gives it.
    """
    explanations = [item["explanation"] for item in items]
    entities = any("start" in target for one in explanations for target in one["targets"])
    # The means cover the most probable label of each text, but all entities.
    leading = [target for one in explanations for target in one["targets"][: None if entities else 1]]
    gaps = [abs(target["gap"]) for one in explanations for target in one["targets"]]
    context = {
        "title": "Explanations",
        "subtitle": subtitle,
        "method": METHODS[method],
        "entities": entities,
        "gap": max([1e-6, *gaps]) if method != "leave_one_out" else None,
        "means": {
            name: sum(target[name] for target in leading) / len(leading)
            for name in ("comprehensiveness", "sufficiency")
            if leading
        },
        "items": [_item(item) for item in items],
    }
    write_html(path, "explanation.html", context)


def _item(item: Item) -> Item:
    explanation, text = item["explanation"], item["text"]
    named = {} if "words" in item else {key: item[key] for key in ("label", "predicted") if key in item}
    labels = {key: ", ".join(own) or "none" if isinstance(own, list) else own for key, own in named.items()}
    return {
        "row": item.get("row"),
        "place": item.get("place"),
        "why": ", ".join(item.get("why", ())),
        "labels": labels,
        "cut": bool(explanation["unread"]),
        "text": text,
        "targets": [
            {
                **target,
                "entity": visible(text[target["start"] : target["end"]]) if "start" in target else "",
                "parts": list(parts(text, explanation, target)),
                "strongest": strongest(text, explanation, target),
            }
            for target in explanation["targets"]
        ],
    }


def parts(text: str, explanation: Item, target: Item) -> Iterator[dict[str, Any]]:
    """A text in parts: words that matter, each with its ``value``, and the text between them.

    ``strength`` is from 0 to 1, relative to the strongest value of any label of this text; ``kind`` is ``for``,
    ``against``, ``unread`` (cut off by the maximum length) or empty.
    """
    most = max((abs(value) for one in explanation["targets"] for value in one["values"]), default=0.0) or 1.0
    plain = {"kind": "", "strength": 0.0, "value": ""}
    marked = [(start, end, {**plain, "kind": "unread"}) for start, end in explanation["unread"]]
    for (start, end), value in zip(explanation["words"], target["values"], strict=True):
        if abs(value) / most >= FAINT:
            kind = "for" if value > 0 else "against"
            marked.append((start, end, {"kind": kind, "strength": abs(value) / most, "value": f"{value:+.3f}"}))
    position = 0
    for start, end, marks in [*sorted(marked, key=lambda mark: mark[0]), (len(text), len(text), plain)]:
        if start > position:
            yield {"text": text[position:start], **plain}
        if end > start:
            yield {"text": text[start:end], **marks}
        position = end


def strongest(text: str, explanation: Item, target: Item) -> str:
    """The words with the largest values: ``love +2.31, not -0.84``."""
    order = sorted(range(len(target["values"])), key=lambda i: -abs(target["values"][i]))[:STRONGEST]
    words = ((text[slice(*explanation["words"][i])], target["values"][i]) for i in order)
    return ", ".join(f"{visible(word)} {value:+.2f}" for word, value in words)


def plot(item: Item, names: Sequence[str] | None = None) -> Text:
    """An explanation for the terminal.

    Args:
        item: with ``text`` and ``explanation``.
        names: the labels to show in colours; None for all targets.
    """
    text, explanation = item["text"], item["explanation"]
    result = Text()
    if not explanation["targets"]:
        where = " in the part that was read" if explanation["unread"] else ""
        return result.append(f"Nothing was found{where}, so there is nothing to explain.\n")
    if "start" not in explanation["targets"][0]:
        width = max(len(visible(target["name"])) for target in explanation["targets"])
        for target in explanation["targets"]:
            bar = "█" * round(30 * target["probability"])
            result.append(f"{visible(target['name']):<{width}}  {number(target['probability'])}  ").append(
                f"{bar}\n", Style(color=BLUE)
            )
    for target in explanation["targets"]:
        if names is not None and target["name"] not in names:
            continue
        entity = f" {text[target['start'] : target['end']]}" if "start" in target else ""
        result.append(f"\n{visible(target['name'] + entity)}", Style(bold=True))
        result.append(f"  {number(target['probability'])}   comprehensiveness {number(target['comprehensiveness'], 3)}"
                      f"   sufficiency {number(target['sufficiency'], 3)}\n")  # fmt: skip
        for part in parts(text, explanation, target):
            result.append(visible(part["text"]), _style(part))
        result.append(f"\n{strongest(text, explanation, target)}\n")
    return result


def _style(part: dict[str, Any]) -> Style:
    if part["kind"] == "unread":
        return Style(dim=True)
    if not part["kind"]:
        return Style()
    colour = bytes.fromhex((BLUE if part["kind"] == "for" else ORANGE)[1:])
    # Black on a tint is legible on light and dark terminals.
    tint = [round(255 + 0.75 * part["strength"] * (channel - 255)) for channel in colour]
    return Style(color="#000000", bgcolor="#{:02x}{:02x}{:02x}".format(*tint), underline=part["kind"] == "against")

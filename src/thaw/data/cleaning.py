"""Cleaning of texts before anything counts or encodes them."""

import html
import re
from collections.abc import Iterator

HIDING = re.compile(r"<!--|<(script|style)\b[^<>]*>", re.IGNORECASE)
HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
BREAK = re.compile(r"</?(?:br|hr|p|div|[uo]l|li|table|t[rdh]|blockquote|h[1-6])(?:\s[^<>]*)?/?>", re.IGNORECASE)
# The name ends in a blank or the end of the tag: <me@example.org> and <https://example.org> are no tags.
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9:-]*(?:\s[^<>]*)?/?>|<![a-zA-Z][^<>]*>")
BLANKS = re.compile(r"\s+")


def clean_html(text: str) -> str:
    """Drop tags, comments and scripts, resolve entities, and set one blank for each run of white space.

    Text that only looks like HTML stays: ``a < b`` and ``<3`` are no tags.
    """
    text = BREAK.sub(" ", " ".join(_shown(text)))
    text = TAG.sub("", text)
    return BLANKS.sub(" ", html.unescape(text)).strip()


def _shown(text: str) -> Iterator[str]:
    """What is between comments, scripts and styles; one that does not end hides nothing.

    A single pattern would look for the end of each such one anew, up to the end of the text.
    """
    shown = place = 0
    endless: set[str | None] = set()
    while begin := HIDING.search(text, place):
        place, kind = begin.end(), begin[1] and begin[1].lower()
        if kind in endless:
            continue
        if hidden := HIDDEN.match(text, begin.start()):
            yield text[shown : begin.start()]
            shown = place = hidden.end()
        else:
            endless.add(kind)
    yield text[shown:]

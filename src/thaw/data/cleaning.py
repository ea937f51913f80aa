"""Cleaning texts before anything counts or encodes them."""

import html
import re
from collections.abc import Iterator

HIDING = re.compile(r"<!--|<(script|style)\b[^<>]*>", re.IGNORECASE)
HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
BREAK = re.compile(r"</?(?:br|hr|p|div|[uo]l|li|table|t[rdh]|blockquote|h[1-6])(?:\s[^<>]*)?/?>", re.IGNORECASE)
# A space or the end of the tag must follow the name: <me@example.org> and <https://example.org> are not tags.
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9:-]*(?:\s[^<>]*)?/?>|<![a-zA-Z][^<>]*>")
BLANKS = re.compile(r"\s+")


def clean_html(text: str) -> str:
    """Drop tags, comments and scripts, resolve entities, and collapse white space.

    Text that only resembles HTML stays: ``a < b`` and ``<3`` are not tags.
    """
    text = BREAK.sub(" ", " ".join(_shown(text)))
    text = TAG.sub("", text)
    return BLANKS.sub(" ", html.unescape(text)).strip()


def _shown(text: str) -> Iterator[str]:
    """The text outside comments, scripts and styles; an unclosed one hides nothing.

    A single pattern would scan to the end of the text for every unclosed one, which takes quadratic time.
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

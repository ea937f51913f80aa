"""Cleaning of texts before anything counts or encodes them."""

import html
import re

HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
BREAK = re.compile(r"</?(?:br|hr|p|div|[uo]l|li|table|t[rdh]|blockquote|h[1-6])(?:\s[^<>]*)?/?>", re.IGNORECASE)
# The name ends in a blank or the end of the tag: <me@example.org> and <https://example.org> are no tags.
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9:-]*(?:\s[^<>]*)?/?>|<![a-zA-Z][^<>]*>")
BLANKS = re.compile(r"\s+")


def clean_html(text: str) -> str:
    """Drop tags, comments and scripts, resolve entities, and set one blank for each run of white space.

    Text that only looks like HTML stays: ``a < b`` and ``<3`` are no tags.
    """
    text = BREAK.sub(" ", HIDDEN.sub(" ", text))
    text = TAG.sub("", text)
    return BLANKS.sub(" ", html.unescape(text)).strip()

"""Cleaning of texts before anything counts or encodes them."""

import html
import re

BREAK = re.compile(r"<\s*(?:br|/?p|/?div|/?li|/?tr|/?h[1-6])\b[^<>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->", re.DOTALL)
BLANKS = re.compile(r"\s+")


def clean_html(text: str) -> str:
    """Drop tags and comments, resolve entities, and set one blank for each run of white space.

    Text that only looks like HTML stays: ``a < b`` and ``<3`` are no tags.
    """
    text = BREAK.sub(" ", text)
    text = TAG.sub("", text)
    return BLANKS.sub(" ", html.unescape(text)).strip()

"""HTML goes, text stays."""

import random

import pytest

from thaw.data import cleaning
from thaw.data.cleaning import clean_html


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("good<br /><br />film", "good film"),
        ("<p class='x'>one</p><P>two</P>", "one two"),
        ("<b>bold</b>ly <i>so</i>", "boldly so"),
        ("<td>1</td><td>2</td><ul><li>3</li></ul>", "1 2 3"),
        ("a &amp; b &lt;3 caf&eacute; &#128512;", "a & b <3 café 😀"),
        ("a<!-- hidden\n -->b", "a b"),
        ("<!DOCTYPE html><style>p {x: y}</style>a<script>if (a < b) {}</script>b", "a b"),
        ('<a href="https://example.org/?a=1&b=2">link</a>', "link"),
        ("  many \n\t blanks\u00a0here ", "many blanks here"),
        ("a < b and c > d", "a < b and c > d"),
        ("i <3 you, 5 > 4", "i <3 you, 5 > 4"),
        ("from <me@example.org>, see <https://example.org>", "from <me@example.org>, see <https://example.org>"),
        ("<br/>", ""),
        ("plain", "plain"),
    ],
)
def test_tags_go_and_text_stays(text: str, cleaned: str) -> None:
    assert clean_html(text) == cleaned


@pytest.mark.parametrize("piece", ["<!-- a", "<script>", "<style></script", "<script", "</script "])
def test_what_never_ends_is_no_trouble(piece: str) -> None:
    """Looking for the end of each anew would take hours."""
    assert clean_html(piece * 150_000 + "<!-- b --> end").endswith("end")


def test_what_is_hidden_is_what_one_pattern_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where letters that are no s or i count as such: Python takes ſ and ı for them if case does not matter."""
    pieces = ["<!--", "-->", "<script>", "</script >", "<SCRIPT a='b'", "</Style>", "<style", "<ſcript>", "</ſcript>",
              "<scrıpt>", "<scrİpt>", "</scrİpt>", ">", "<", "a", " ", "<p>", "!--", "<scripts>"]  # fmt: skip
    choice = random.Random(0)
    texts = ["".join(choice.choices(pieces, k=choice.randrange(1, 12))) for _ in range(20_000)]
    found = [clean_html(text) for text in texts]
    monkeypatch.setattr(cleaning, "_shown", lambda text: [cleaning.HIDDEN.sub(" ", text)])
    assert found == [clean_html(text) for text in texts]

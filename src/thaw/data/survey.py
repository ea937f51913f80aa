"""What there is to know about texts before training: lengths, the cost of truncation, how words are split."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import regex

from thaw.data.pairs import BETWEEN
from thaw.data.spans import NO_BLANKS
from thaw.data.tokenizing import cut, encodings, special_tokens
from thaw.labels import LabelSet
from thaw.metrics.entities import spans

QUANTILES = {"low": 0.05, "first": 0.25, "median": 0.5, "third": 0.75, "high": 0.95}
CHUNK = 5_000  # words handed to the tokenizer at once
LISTED = 25  # words in each list
POINTS = 60  # of the truncation curve
# `regex` instead of `re`, which does not count vowel signs of Indic scripts and Arabic as word characters.
WORD = regex.compile(f"[{NO_BLANKS}]|[^\\W_{NO_BLANKS}]+")


def words_of(text: str | Sequence[str]) -> Sequence[str]:
    """The words of a text, without punctuation; a sentence given as words is returned unchanged."""
    return WORD.findall(text.replace(BETWEEN, " ")) if isinstance(text, str) else text


def box(values: np.ndarray) -> dict[str, float]:
    """Quantiles for a box plot (5, 25, 50, 75 and 95 %), and the number of values."""
    found = np.quantile(values, list(QUANTILES.values()))
    return {name: round(float(value), 2) for name, value in zip(QUANTILES, found, strict=True)} | {"rows": len(values)}


def truncation_curve(lengths: np.ndarray, limit: int) -> dict[str, list[float]]:
    """What each ``data.max_length`` would cut.

    Args:
        lengths: tokens of each text, before truncation.
        limit: the maximum length of the encoder.

    Returns:
        ``max_length``, up to the longest text or the limit; ``texts``: the share of texts that lose tokens;
        ``tokens``: the share of tokens lost.
    """
    ordered = np.sort(lengths).astype(np.int64)
    last = min(limit, max(int(ordered[-1]), 16))
    points = np.unique(np.linspace(min(8, last), last, POINTS).round().astype(np.int64))
    longer = len(ordered) - np.searchsorted(ordered, points, side="right")
    above = ordered.sum() - np.concatenate(([0], np.cumsum(ordered)))[len(ordered) - longer]
    return {
        "max_length": points.tolist(),
        "texts": (longer / len(ordered)).round(6).tolist(),
        "tokens": ((above - longer * points) / ordered.sum()).round(6).tolist(),
    }


def vocabulary(counts: Counter[str], tokenizer: Any) -> dict[str, Any]:
    """How a tokenizer splits words.

    Args:
        counts: how often each word occurs.
        tokenizer: of the encoder, prepared for pre-split text.

    Returns:
        ``running`` and ``distinct``: the numbers of tokens and types (words and distinct words); ``one_piece`` and
        ``unknown``: shares of the running words; ``distinct_one_piece``: share of the distinct words; ``pieces`` per
        running word; and the lists ``costly`` (words whose splitting adds most pieces), ``longest`` (words with most
        pieces) and ``unknowns``, each with ``word``, ``count`` and ``pieces``.
    """
    words = list(counts)
    often = np.fromiter(counts.values(), dtype=np.int64, count=len(words))
    pieces = np.empty(len(words), dtype=np.int64)
    unknown = np.zeros(len(words), dtype=bool)
    for start in range(0, len(words), CHUNK):
        for place, encoding in enumerate(_alone(words[start : start + CHUNK], tokenizer), start=start):
            pieces[place] = len(encoding.ids)
            # A word that the tokenizer drops, such as a lone control character, counts as unknown.
            unknown[place] = not encoding.ids or tokenizer.unk_token_id in encoding.ids
    total = max(int(often.sum()), 1)

    def listed(rank: np.ndarray, those: np.ndarray) -> list[dict[str, Any]]:
        rows = those[np.argsort(-rank[those], kind="stable")[:LISTED]]
        shown = _alone([words[i] for i in rows], tokenizer) if len(rows) else []
        return [
            {"word": words[i], "count": int(often[i]), "pieces": _slices(words[i], encoding)}
            for i, encoding in zip(rows, shown, strict=True)
        ]

    split = np.flatnonzero((pieces > 1) & ~unknown)
    return {
        "running": int(often.sum()),
        "distinct": len(words),
        "one_piece": float(often[(pieces == 1) & ~unknown].sum() / total),
        "distinct_one_piece": float(((pieces == 1) & ~unknown).sum() / max(len(words), 1)),
        "pieces": float((often * pieces).sum() / total),
        "unknown": float(often[unknown].sum() / total),
        "costly": listed(often * (pieces - 1), split),
        "longest": listed(pieces, split),
        "unknowns": listed(often, np.flatnonzero(unknown)),
    }


def _slices(word: str, encoding: Any) -> list[str]:
    """The pieces as they appear in the word; a piece that is only the space before it is shown as a sign."""
    return [word[start:end] or "␣" for start, end in encoding.offsets]


def entity_survey(texts: Iterable[Sequence[str]], tags: Iterable[Iterable[int]], labels: LabelSet) -> dict[str, Any]:
    """The entities of a split.

    Returns:
        ``types``: for each type the ``count``, the ``lengths`` (how many have 1, 2, 3, 4, and 5 or more words), the
        number of ``distinct`` forms and the most frequent ``surfaces`` with their counts; ``ambiguous``: forms that
        occur with several types, with the count of each.
    """
    forms: dict[str, Counter[str]] = {}
    lengths: dict[str, list[int]] = {}
    for words, tag_ids in zip(texts, tags, strict=True):
        for kind, first, end in spans([labels.names[i] for i in tag_ids]):
            forms.setdefault(kind, Counter())[" ".join(words[first:end])] += 1
            lengths.setdefault(kind, [0] * 5)[min(end - first, 5) - 1] += 1
    several: dict[str, Counter[str]] = {}
    for kind, counts in forms.items():
        for form, count in counts.items():
            several.setdefault(form, Counter())[kind] = count
    ambiguous = sorted((form for form in several if len(several[form]) > 1), key=lambda form: -several[form].total())
    return {
        "types": {
            kind: {
                "count": forms[kind].total(),
                "lengths": lengths[kind],
                "distinct": len(forms[kind]),
                "surfaces": [list(pair) for pair in forms[kind].most_common(10)],
            }
            for kind in sorted(forms)
        },
        "ambiguous_forms": len(ambiguous),
        "ambiguous": [{"form": form, "types": dict(several[form].most_common())} for form in ambiguous[:LISTED]],
    }


def _alone(words: Sequence[str], tokenizer: Any) -> Any:
    """The tokens of each word on its own."""
    return encodings(tokenizer, [[word] for word in words], words=True)


def pieces_of(text: str, tokenizer: Any, max_length: int, truncation: str) -> list[dict[str, Any]]:
    """How a text is split into tokens.

    Args:
        max_length: tokens kept, special tokens included.
        truncation: what is cut of a longer text, see `cut`.

    Returns:
        For each token: ``piece`` as in the vocabulary, ``id``, ``start`` and ``end`` in characters of the text,
        ``word`` (its number, None for special tokens), and whether it is ``special``, ``unknown``, or ``cut`` off.
    """
    before, after = special_tokens(tokenizer)
    (encoding,) = encodings(tokenizer, [text], special=True)
    total = len(encoding.ids)
    inner = list(range(len(before), total - len(after)))
    kept = inner if truncation == "windows" else cut(inner, max_length - len(before) - len(after), truncation)
    lost = set(inner).difference(kept)
    return [
        {
            "piece": encoding.tokens[i],
            "id": encoding.ids[i],
            "start": encoding.offsets[i][0],
            "end": encoding.offsets[i][1],
            "word": encoding.word_ids[i],
            "special": i < len(before) or i >= total - len(after),
            "unknown": encoding.ids[i] == tokenizer.unk_token_id,
            "cut": i in lost,
        }
        for i in range(total)
    ]

"""The schemes of word tags that mark entities: IOB1, IO, BIOES and BILOU become IOB2."""

from collections.abc import Collection, Iterable, Sequence

MARKS = {"E": "I", "L": "I", "M": "I", "S": "B", "U": "B"}  # BIOES and BILOU prefixes -> IOB2


def to_iob2(tags: Sequence[str], known: Collection[str] = ()) -> list[str]:
    """Convert IOB1, BIOES and BILOU tags to IOB2; IOB2 tags, and tags that mark no spans, stay unchanged.

    Args:
        known: tags that are names of their own, whatever they look like.
    """
    result: list[str] = []
    previous = "O"
    for tag in tags:
        tag = tag if tag in known else by_iob(tag)
        begins = tag.startswith("I-") and (previous[1:] != tag[1:] or previous[:2] not in ("B-", "I-"))
        previous = "B" + tag[1:] if begins else tag
        result.append(previous)
    return result


def iob2_names(names: Iterable[str]) -> list[str]:
    """The tags that `to_iob2` can produce from these names; IOB2 names in the order in which they are given."""
    names = list(names)
    plain = list(map(by_iob, names)) if are_bioes(names) else names
    return list(dict.fromkeys([*plain, *("B" + tag[1:] for tag in plain if tag.startswith("I-"))]))


def are_bioes(tags: Collection[str]) -> bool:
    """Whether the prefixes of BIOES or BILOU that occur in a tag set are such, not those of ``S-Bahn`` and ``U-Bahn``.

    Then some type has B- or I-, too, or, where each entity is one word, all have S-, or all U-.
    """
    marked = set(tags) - {"O"}
    if len(marked) < len(set(tags)) and any(
        marked and all(tag.startswith(mark) for tag in marked) for mark in ("S-", "U-")
    ):
        return True
    types = {tag[2:] for tag in tags if tag.startswith(("B-", "I-"))}
    return not types.isdisjoint(tag[2:] for tag in like_bioes(tags))


def like_bioes(tags: Iterable[str]) -> list[str]:
    """The tags that begin as those of BIOES and BILOU do, and those of IOB do not."""
    return sorted(tag for tag in tags if tag[1:2] == "-" and tag[0] in MARKS)


def are_io(tags: Iterable[str]) -> bool:
    """Whether tags are types of entities and O, without B- and I-, as Stanford's tools and Flair write them.

    Parts of speech, which have no O, are not.
    """
    names = set(tags)
    return "O" in names and len(names) > 1 and not any(tag.startswith(("B-", "I-")) for tag in names)


def by_iob1(tags: Iterable[str]) -> list[str]:
    """IO tags as IOB1, in which neighbouring equal tags are one entity, too."""
    return [tag if tag == "O" else f"I-{tag}" for tag in tags]


def by_iob(tag: str) -> str:
    """A tag of BIOES or BILOU with the prefix that it has in IOB2; other tags unchanged."""
    return MARKS.get(tag[0], tag[0]) + tag[1:] if tag[1:2] == "-" else tag

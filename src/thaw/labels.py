"""Task and LabelSet: what the model has to tell apart. Knows nothing of data files or models."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from thaw.errors import UserError

Task = Literal["sequence", "multi_label", "token"]
NUMBER = re.compile(r"-?[0-9]{1,18}")
TASKS: tuple[Task, ...] = get_args(Task)
ALPHABETICAL = "alphabetical order of the labels"
GIVEN = "as given by the data or data.label_names"
UNREAD = -1  # label id of a word without a token, in tag sets without O
IGNORED = -100  # label id that torch's losses skip: special tokens, sub-tokens that continue a word


@dataclass(frozen=True)
class LabelSet:
    """The bridge from data to model: names in a stable order, the task, and how often each label occurs in training.

    Args:
        task: ``sequence`` (one label per text), ``multi_label`` (any number per text) or ``token`` (one per word).
        names: label names; a label's id is its position.
        counts: rows (words, for token tasks) of the training split with each label.
        order: where the order of the names comes from, as shown to the user.
        rows: rows of the training split.
        given: whether the names were given rather than derived from the rows; numbers in the data are then positions.
        pairs: whether each text is a pair, stored as in `thaw.data.pairs`.
    """

    task: Task
    names: tuple[str, ...]
    counts: tuple[int, ...]
    order: str = ""
    rows: int = 0
    given: bool = False
    pairs: bool = False
    ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {name: i for i, name in enumerate(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    @property
    def entities(self) -> bool:
        """Whether the tags mark spans (B-, I-) rather than one class per word, as part-of-speech tags do."""
        return self.task == "token" and any(name.startswith("B-") for name in self.names)

    def id_of(self, label: str) -> int:
        """The id of a label as it stands in the data: a name, or a position if the names were given for numbers.

        Raises:
            KeyError: for an unknown label.
        """
        if label in self.ids:
            return self.ids[label]
        positions = self.given and not any(NUMBER.fullmatch(name) for name in self.names)
        if positions and NUMBER.fullmatch(label) and 0 <= int(label) < len(self):
            return int(label)
        raise KeyError(label)

    def ids_of(self, label: str | Sequence[str]) -> Any:
        """The id of a name, or the list of ids of several."""
        return self.ids[label] if isinstance(label, str) else [self.ids[name] for name in label]

    def difference(self, other: "LabelSet") -> str:
        """How the labels of two runs differ, their order apart, in words; empty if they do not."""
        if self.task != other.task:
            return f"one is a {self.task} task, the other a {other.task} task"
        odd = sorted({*self.names} ^ {*other.names})
        return f"the labels differ: {', '.join(odd[:5])} in one only" if odd else ""

    @property
    def outside(self) -> int:
        """Id of the tag O, for words in no entity and words without a token; `UNREAD` in tag sets without O."""
        return self.ids.get("O", UNREAD)

    def balanced_weights(self) -> list[float]:
        """Class weights inverse to frequency, with mean 1 over what is counted (scikit-learn's "balanced")."""
        total, present = sum(self.counts), sum(count > 0 for count in self.counts)
        return [total / (present * count) if count else 0.0 for count in self.counts]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for checkpoints and JSON."""
        plain = asdict(self)
        del plain["ids"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "LabelSet":
        """The inverse of `to_dict`.

        Raises:
            UserError: when another version of thaw wrote the dict.
        """
        task, names, counts, order, rows, given = required(plain, "task", "names", "counts", "order", "rows", "given")
        return cls(task, tuple(names), tuple(counts), order, rows, given, plain.get("pairs", False))


def required(saved: dict[str, Any], *keys: str) -> list[Any]:
    """Values of ``labels.json`` that must be there.

    Raises:
        UserError: when one is missing, since another version of thaw wrote the file.
    """
    if lost := [key for key in keys if key not in saved]:
        raise UserError(f"labels.json lacks {lost[0]!r}: another version wrote this run", "Train it again.")
    return [saved[key] for key in keys]


def order_names(values: Iterable[Any], given: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """Names of the labels in a stable order, and where the order comes from.

    Args:
        values: every distinct label of the training split: strings or integers.
        given: names stated by the data or the user, which fix the order.

    Returns:
        The given names, else whole numbers in numeric order, else strings in alphabetical order.

    Raises:
        UserError: for names given to numbers that do not count from 0.
    """
    distinct = {str(value) for value in values}
    if given:
        names = _checked(given)
        if str(len(names)) in distinct and "0" not in distinct and not any(map(NUMBER.fullmatch, names)):
            # Each number would get the name of the next one, and the last none: an error of its own, or a skipped row.
            raise UserError(
                f"data.label_names={list(names)} names the numbers 0 to {len(names) - 1}, and the labels are 1 to "
                f"{len(names)}",
                "Write the names into the data, or leave data.label_names out.",
            )
        return names, GIVEN
    if all(NUMBER.fullmatch(value) for value in distinct):
        return tuple(sorted(distinct, key=lambda value: (int(value), value))), "numeric order of the labels"
    return tuple(sorted(distinct)), ALPHABETICAL


def order_tags(values: Iterable[str], given: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """As `order_names`, for word tags: O first, then B- and I- of each type in alphabetical order.

    Both B- and I- of every type are listed, even if the data has only one: predictions may need the other.
    """
    if given:
        return _checked(given), GIVEN
    distinct = set(values)
    types = sorted({tag[2:] for tag in distinct if tag[:2] in ("B-", "I-")})
    if not types:
        return order_names(distinct, None)
    plain = sorted(tag for tag in distinct if tag[:2] not in ("B-", "I-") and tag != "O")
    spans = [f"{prefix}-{kind}" for kind in types for prefix in ("B", "I")]
    return ("O", *plain, *spans), "O first, then B- and I- of each type in alphabetical order"


def _checked(given: Sequence[Any]) -> tuple[str, ...]:
    names = tuple(str(name) for name in given)
    if len(set(names)) < len(names):
        raise UserError(f"data.label_names={given} is not a list of distinct names", "Write it [negative,positive].")
    return names


def folded(label: str) -> str:
    """A label without upper case and blanks, in which some differ by mistake."""
    return "".join(label.casefold().split())


def require_classes(labels: LabelSet, where: str) -> None:
    """Refuse data that nothing can be learnt from.

    Raises:
        UserError: when fewer than two labels exist, or occur, in training.
    """
    present = [name for name, count in zip(labels.names, labels.counts, strict=True) if count]
    if labels.task == "multi_label":
        if not present:
            raise UserError(f"{where}: no row has any label", "Check data.label_column and data.label_separator.")
    elif len(present) < 2:
        only = f"only the label {present[0]!r}" if present else "no label at all"
        raise UserError(
            f"{where}: the training split has {only}",
            "A classifier needs at least two; check data.label_column, or give more rows with data.train_size.",
        )

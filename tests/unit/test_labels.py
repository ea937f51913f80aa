"""Names, ids and counts of labels: stable, and never guessed."""

import json

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from thaw.errors import UserError
from thaw.labels import GIVEN, LabelSet, Task, order_names, order_tags, require_classes


@pytest.mark.parametrize(
    ("values", "given", "names", "order"),
    [
        (["joy", "anger", "joy"], None, ("anger", "joy"), "alphabetical order of the labels"),
        (["10", "9", "-1"], None, ("-1", "9", "10"), "numeric order of the labels"),
        (["10", "9", "joy"], None, ("10", "9", "joy"), "alphabetical order of the labels"),
        (["²", "3"], None, ("3", "²"), "alphabetical order of the labels"),
        (["--1", "3"], None, ("--1", "3"), "alphabetical order of the labels"),
        (["1.5", "1"], None, ("1", "1.5"), "alphabetical order of the labels"),
        (["01", "2", "1", "001"], None, ("001", "01", "1", "2"), "numeric order of the labels"),
        (["joy"], ["joy", "anger"], ("joy", "anger"), GIVEN),
        (["0"], [1, 0], ("1", "0"), GIVEN),
    ],
)
def test_names_have_a_stable_order_that_is_told(
    values: list[str], given: list[str] | None, names: tuple[str, ...], order: str
) -> None:
    assert order_names(values, given) == (names, order)
    assert order_names(reversed(values), given) == (names, order)


def test_tags_are_listed_with_their_partners() -> None:
    names, order = order_tags(["I-PER", "B-LOC", "X"], None)
    assert names == ("O", "X", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert order == "O first, then B- and I- of each type in alphabetical order"
    assert order_tags(["VB", "NN"], None)[0] == ("NN", "VB")
    assert order_tags(["O", "B-A"], ["B-A", "O"]) == (("B-A", "O"), GIVEN)


def test_given_names_must_be_different_ones() -> None:
    with pytest.raises(UserError, match="is not a list of distinct names"):
        order_names(["joy"], ["joy", "joy"])


def test_a_number_is_a_position_only_where_names_were_given() -> None:
    given = LabelSet("sequence", ("neg", "pos"), (1, 1), "in whatever words", given=True)
    assert [given.id_of(label) for label in ("neg", "pos", "0", "1")] == [0, 1, 0, 1]
    derived = LabelSet("sequence", ("neg", "pos"), (1, 1), GIVEN)
    numbers = LabelSet("sequence", ("1", "2", "3"), (1, 1, 1), given=True)
    assert numbers.id_of("1") == 0
    for labels, unknown in ((given, "2"), (given, "-1"), (given, "joy"), (derived, "0"), (numbers, "0")):
        with pytest.raises(KeyError):
            labels.id_of(unknown)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    ids = np.array([0] * 7 + [1] * 2 + [2])
    labels = LabelSet("sequence", ("a", "b", "c"), (7, 2, 1))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=ids)
    assert labels.balanced_weights() == pytest.approx(expected.tolist())


def test_a_label_set_survives_json() -> None:
    labels = LabelSet("token", ("O", "B-X", "I-X"), (5, 2, 1), "some order", 3, given=True)
    assert LabelSet.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


@pytest.mark.parametrize(
    ("task", "counts", "said"),
    [
        ("sequence", (5, 0), "some.csv: the training split has only the label 'a'. A classifier needs at least two"),
        ("token", (0, 9), "some.csv: the training split has only the label 'b'."),
        ("multi_label", (0, 0), "some.csv: no row has any label. Check data.label_column and data.label_separator."),
    ],
)
def test_a_single_class_is_an_error(task: Task, counts: tuple[int, int], said: str) -> None:
    with pytest.raises(UserError) as raised:
        require_classes(LabelSet(task, ("a", "b"), counts), "some.csv")
    assert str(raised.value).startswith(said)
    require_classes(LabelSet(task, ("a", "b"), (1, 1)), "some.csv")


def test_labels_of_another_version_are_told() -> None:
    plain = LabelSet("sequence", ("a", "b"), (1, 1)).to_dict()
    del plain["given"]
    with pytest.raises(UserError, match=r"labels\.json lacks 'given': another version wrote this run"):
        LabelSet.from_dict(plain)


def test_names_for_numbers_that_count_from_1_are_refused() -> None:
    with pytest.raises(UserError, match=r"names the numbers 0 to 2, and the labels are 1 to 3"):
        order_names(["1", "3", "2"], ["bad", "fair", "good"])
    assert order_names(["0", "2", "3"], ["bad", "fair", "good"])[0] == ("bad", "fair", "good"), "3 is told with its row"
    assert order_names(["1", "2", "3"], ["1", "2", "3"])[0] == ("1", "2", "3")

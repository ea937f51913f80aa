"""What is unusual about data and figures, in lines that say what to do."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from thaw.errors import counted, first_few
from thaw.labels import NUMBER, folded
from thaw.metrics.baselines import BAG_OF_WORDS, UNTRAINED

FEW = 500  # rows of test: with fewer, accuracy is uncertain by more than 4 points
SEPARATORS = ("|", ";", ",")  # of several labels in one field
MANY_LABELS, ROWS_PER_LABEL = 20, 5  # more labels than that, each with fewer rows, are rather dates or ids
MOST_PAIRS = 8  # labels that the command which joins them names
PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[^\W\d][\w -]*", re.IGNORECASE)  # a name that needs no quotes
HTML = 0.01  # share of the training texts from which on it is noted
FOREIGN = (1.9, 5.0)  # tokens for each word in a language that an encoder does not know; more of one without blanks
TRUNCATED = 0.1  # share of the training rows from which on advice is given about their truncation
FOR_MISSING = {"nan", "NaN", "NaT", "<NA>", "NA", "N/A", "#N/A", "n/a", "None", "null", "NULL"}  # of pandas, SQL, Excel


def notes(summary: dict[str, Any]) -> list[str]:
    """What is unusual about the data, one line each: texts in two splits, similar label names, labels without rows."""
    lines = [
        f"{what} of {pair['in']} that are also in {pair['also_in']}: {pair[key]:,}"
        for what, key in (("texts", "rows"), ("groups", "groups"))
        for pair in summary["shared"]
        if pair.get(key)
    ]
    if changed := summary.get("corrected"):  # older runs lack it
        lines.append(f"labels that data.corrections has changed: {changed:,}")
    sizes = {name: split["rows"] for name, split in summary["splits"].items()}
    if "all" in summary["files"] and not summary.get("fold") and sizes.get("test", FEW) < FEW:
        lines.append(f"{counted(sizes['test'], 'row')} of test: sweep=folds tests on every row in turn")
    lines += _alike(summary["labels"], summary["splits"]["train"]["labels"], summary["task"] == "token")
    if summary.get("truncation") == "end" and (cut := summary["splits"]["train"]["truncated"]) >= TRUNCATED:
        lines.append(
            f"the end of {cut:.0%} of the training texts is not read: data.truncation=middle or windows reads it"
        )
    if (html := summary.get("html", 0)) >= HTML:
        lines.append(f"HTML in {html:.0%} of the training texts: data.clean_html=true drops tags and resolves entities")
    if FOREIGN[0] <= (pieces := summary.get("tokens_per_word", 0)) <= FOREIGN[1]:
        lines.append(
            f"{pieces:.1f} tokens for each word: does the encoder know the language of these texts? "
            "model=xlm_roberta and model=bert_multilingual know a hundred"
        )
    if inside := summary.get("inside_words"):  # older runs lack it
        some = "1 entity begins or ends" if inside == 1 else f"{inside:,} entities begin or end"
        such_as = summary["inside_words_rows"][0]
        lines.append(f"{some} inside a word, such as {such_as}: do the offsets count characters?")
    if summary["task"] == "token":
        return lines + _odd_tags(summary["labels"]) + _absent_types(summary["splits"])
    if summary["task"] == "sequence":
        lines += _odd_labels(summary["labels"], sizes["train"])
    if absent := [label for label in summary["labels"] if label in FOR_MISSING]:
        lines.append(f"labels that may stand for a missing one: {first_few(absent)}")
    for name, split in summary["splits"].items():
        if absent := [label for label, count in split["labels"].items() if not count]:
            lines.append(f"labels without a row in {name}: {first_few(absent)}")
    own = summary["splits"].values() if summary["task"] == "multi_label" else ()
    if own and all(sum(split["labels"].values()) + split["unlabelled"] == split["rows"] for split in own):
        lines.append(
            "no text has more than one label: train with data.task=sequence, unless data.label_separator is wrong"
        )
    return lines


def _odd_labels(names: Sequence[str], rows: int) -> list[str]:
    """What makes it doubtful that a column holds one label of a few."""
    lines = []
    for separator in SEPARATORS:
        parts = {name: [part.strip() for part in name.split(separator)] for name in names if separator in name}
        if joins := [name for name, own in parts.items() if set(own) <= {*names}]:
            hint = f'if texts have several, set data.label_separator="{separator}"'
            lines.append(f"labels made of other labels: {first_few(joins)}; {hint}")
    if len(names) > MANY_LABELS and rows < ROWS_PER_LABEL * len(names):
        lines.append(f"{len(names):,} labels in {rows:,} rows of train: is data.label_column the right one?")
    return lines


def _alike(labels: Sequence[str], rows: Mapping[str, int], token: bool) -> list[str]:
    """A note on labels, or types of entities, that differ in case or blanks alone, with the setting that joins them."""
    counts = Counter[str]()
    for label in labels:
        counts[label[2:] if token and label[1:2] == "-" else label] += rows.get(label, 0)
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(folded(name), []).append(name)
    several = [sorted(names, key=lambda name: -counts[name]) for names in alike.values() if len(names) > 1]
    if not several:
        return []
    pairs = [(name, names[0]) for names in several for name in names[1:]]
    # Others would have to be quoted, for Hydra and for the shell.
    plain = len(pairs) <= MOST_PAIRS and all(PLAIN.fullmatch(name) for pair in pairs for name in pair)
    joins = f"'data.label_map={{{', '.join(f'{old}: {new}' for old, new in pairs)}}}'" if plain else "data.label_map"
    said = first_few([" and ".join(names) for names in several])
    return [f"labels that differ only in case or blanks: {said}; {joins} joins them"]


def left_out(summary: dict[str, Any]) -> list[str]:
    """The first rows that were left out, a line each, and how many more there are."""
    lines: list[str] = summary["skipped_rows"]
    more = sum(summary["skipped"].values()) - len(lines)
    return [*lines, counted(more, "more row")] if more else lines


def _odd_tags(names: Sequence[str]) -> list[str]:
    """What is unusual about word tags. A tag without words is not, since B- and I- are always listed in pairs."""
    if all(NUMBER.fullmatch(name) for name in names):
        return ["the tags are numbers and mark no entities; their names: data.label_names=[O,B-PER,I-PER,...]"]
    plain = [name for name in names if name != "O" and name[:2] not in ("B-", "I-")]
    if len(plain) < len(names) - 1 and plain and any(name.startswith("B-") for name in names):
        return [f"tags that are neither O nor begin with B- or I-, and so mark no entity: {first_few(plain)}"]
    return []


def _absent_types(splits: Mapping[str, Any]) -> list[str]:
    """The entity types that a split lacks."""
    lines = []
    for name, split in splits.items():
        words = Counter[str]()
        for tag, count in split["labels"].items():
            if tag[:2] in ("B-", "I-"):
                words[tag[2:]] += count
        if absent := [kind for kind, count in words.items() if not count]:
            lines.append(f"types without a word in {name}: {first_few(absent)}")
    return lines


def of_run(metrics: Mapping[str, Any], split: str, counts: Mapping[str, int], data: Mapping[str, Any]) -> list[str]:
    """What the metrics of a split suggest, one sentence each.

    Args:
        metrics: as in ``metrics.json``.
        counts: how often each label, or entity type, occurs in the split.
        data: as in ``data.json``.
    """
    lines, train = list(metrics.get("notes", [])), data["splits"]["train"]
    if made_worse(metrics, split):
        before, after = metrics[f"{split}/ece"], metrics[f"{split}/ece_calibrated"]
        lines.append(
            f"The temperature, fitted on validation, raises the calibration error of {split} from {before:.3f} to "
            f"{after:.3f}: leave calibrated=true out, unless your texts are more like those of validation."
        )
    score = metrics[f"{split}/f1"]
    baselines = metrics["baselines"].get(split, {})
    beside = {name: figures["f1"] for name, figures in baselines.items() if figures.get("f1") is not None}
    best = max(beside, key=lambda name: (beside[name], name == UNTRAINED), default="")
    ahead = baselines.get(best, {}).get("f1_ahead")  # of a vote, and of runs of earlier versions, not known
    if best and (said := _rivalled(best, beside[best], score, ahead)):
        cut = train.get("truncated", 0.0)  # texts that are read in windows are not
        more = " More data.epochs or another optimizer.lr may help." if score < 1 else ""
        if more and best == BAG_OF_WORDS and cut >= TRUNCATED:  # a bag of words reads whole texts
            middle = " data.truncation=windows," if data.get("truncation") == "end" else ""
            more = (
                f" More data.epochs, another optimizer.lr,{middle} or a larger data.max_length (if need be, another "
                f"encoder) may help: {cut:.0%} of the training rows are truncated."
            )
        lines.append(f"{said}{more}")
    if unmeasured := [name for name, count in counts.items() if not count]:
        lines.append(f"Not measured, since no row of {split} has them: {first_few(unmeasured)}.")
    never = [name for name, count in counts.items() if count and not metrics[f"{split}/recall/{name}"]]
    if unknown := [name for name in never if not any(train["labels"].get(tag + name) for tag in ("", "B-", "I-"))]:
        lines.append(f"Not to be found, since no row of train has them: {first_few(unknown)}.")
    if never := [name for name in never if name not in unknown]:
        lines.append(
            f"Never found: {first_few(never)}. More data.epochs, another optimizer.lr, or loss=balanced may help."
        )
    # Of a rare label that the run hardly tells from others, the best F1 is to give it to many rows.
    given = {name: _given(metrics, split, name, count) for name, count in counts.items()}
    if often := [f"{name} ({given[name]:,} for {counts[name]:,})" for name in given if given[name] > 5 * counts[name]]:
        lines.append(f"Given far too often: {first_few(often)}. More data.epochs, or more rows with them, may help.")
    return lines


def _rivalled(name: str, theirs: float, ours: float, ahead: Sequence[float] | None) -> str:
    """That the best baseline does as well as the run, or that it may be chance that it does not.

    Args:
        name, theirs: of the baseline, and its F1.
        ahead: the 95 % interval of how far the run is ahead.
    """
    chance = ahead and ahead[0] <= 0 <= ahead[1]
    if theirs < ours and not chance:
        return ""
    said = "has the higher F1" if theirs > ours else "does as well in F1" if theirs == ours else "comes close in F1"
    open_ = (
        f"; the difference, {ahead[0]:+.3f} to {ahead[1]:+.3f}, may be chance"
        if ahead and chance and any(ahead)
        else ""
    )
    return f"{name} {said} ({theirs:.3f}, this run {ours:.3f}{open_})."


def made_worse(metrics: Mapping[str, Any], split: str) -> bool:
    """Whether temperature scaling raises the calibration error of a split so far that the intervals do not overlap."""
    pairs = [metrics.get("intervals", {}).get(f"{split}/{name}") for name in ("ece", "ece_calibrated")]
    return all(pairs) and bool(pairs[0][1] < pairs[1][0])


def _given(metrics: Mapping[str, Any], split: str, name: str, count: int) -> int:
    """How often a label was predicted; 0 where none of the predictions is right, from which it does not follow."""
    # None in metrics.json, nan before it is written: of labels that do not occur.
    precision, recall = (metrics.get(f"{split}/{kind}/{name}") or 0.0 for kind in ("precision", "recall"))
    return round(count * recall / precision) if precision > 0 and recall > 0 else 0

"""What ``predict.py`` does: label one text, a file or a stream, in order and in constant memory."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw.data import sources
from thaw.data.pairs import BETWEEN
from thaw.data.rows import Options
from thaw.data.tables import words_in
from thaw.errors import UserError, counted
from thaw.files import check_not_over
from thaw.inference.attribution import check_method
from thaw.inference.predictor import Predictor
from thaw.inference.records import TABLES, Input, Record, kind_of, read_records, unused_key
from thaw.inference.texts import Text, blank
from thaw.inference.writing import output_format, writer
from thaw.reporting.predictions import row_text
from thaw.reporting.progress import counting
from thaw.reporting.summary import number, table
from thaw.runs import display, listed, load_config, several
from thaw.settings import plain

DIGITS = 6  # of the scores in the output
CELLS = (*TABLES, "xlsx")  # formats with one value in a cell


def label(config: DictConfig) -> None:
    """Label what the config of ``predict.py`` names.

    Raises:
        UserError: when there is nothing to label, or a file cannot be read or written.
    """
    if OmegaConf.is_missing(config, "run"):
        raise UserError("run is missing", "Give the folder of a finished run, or run=latest.")
    if (config.text is None) == (config.input is None):
        both = "takes text= or input=, not both" if config.input else "needs text= or input="
        raise UserError(f"predict.py {both}", 'Give text="I love this", or input=tickets.csv.')
    suffix = output_format(config.output)
    if suffix == "conll" and (config.input is None or config.explain):
        what = "explanations" if config.explain else "a single text"
        raise UserError(f"output={config.output}: CoNLL columns cannot hold {what}", "Give .jsonl.")
    if config.output and config.input:
        check_not_over(config.output, config.input, "the input")
    folders = several(listed(config.run))
    if config.explain:
        check_method(config.explain, gradients=config.backend == "torch", runs=len(folders))
        if config.precision != "32-true":
            raise UserError(f"precision={config.precision}: explanations need all digits", "Leave it out.")
    source = open_source(config, folders[0]) if config.input is not None else None
    options = {key: config[key] for key in ("batch_size", "backend", "precision", "calibrated", "min_score")}
    predictor = Predictor.from_runs(folders, **options)
    if predictor.labels.task == "token" and config.probabilities:
        raise UserError("probabilities=true is for labels of whole texts", "Leave it out: entities have a score.")
    if source is not None:
        separator = data_of(folders[0]).get("label_separator") if suffix in CELLS else None
        label_records(predictor, source, suffix, config, separator)
        return
    shown = config.output is None and sys.stdout.isatty()
    with nullcontext(show_result) if shown else writer(config.output, suffix) as write:
        (result,) = predict(predictor, [str(config.text)], config)
        if blank(row_text(result), predictor.labels.pairs):
            print("warning: there is no text", file=sys.stderr)
        say_cut(predictor, 1)
        write(result if shown else written(result, predictor, suffix))
    say_unsure(predictor)
    say_where(config.output, 1)


def open_source(config: DictConfig, run: str) -> Input:
    """The records of ``input=``; problems with its beginning are reported before the network is loaded.

    Args:
        run: that says how to read them, the first of several.
    """
    kind = kind_of(str(config.input), config.format, config.encoding)
    options = read_options(config, run, kind)
    source = read_records(str(config.input), kind, options, skip=config.on_bad_row == "skip")
    if config.header is None and isinstance(config.text_column, int) and options.header and kind in TABLES:
        said = f"the first line names the columns: {', '.join(source.fields)}; header=false makes it a row"
        print(f"warning: {config.input}: {said}", file=sys.stderr)
    return source


def label_records(predictor: Predictor, source: Input, suffix: str, config: DictConfig, separator: str | None) -> None:
    """Label every record, and write it together with the prediction.

    Args:
        suffix: the format of the output.
        separator: between several labels in a cell; None for a list.
    """
    columns = suffix == "conll"
    if columns and predictor.labels.task != "token":
        raise UserError(f"output={config.output}: the run labels texts, not words", "Give .jsonl, .csv or .tsv.")
    read, kept = itertools.tee(source.records)  # tee buffers what is read ahead of the predictions
    texts = (as_given(text, predictor, source.cells, columns) for text, _ in read)
    results = predict(predictor, texts, config)
    labelled = without_text = 0

    def ours(result: Record) -> Record:
        # Without what the record contains already; but a text cleaned of HTML differs from the record's.
        held = {"words"} if predictor.clean and config.explain else {"words", "text"}
        own = {key: value for key, value in written(result, predictor, suffix).items() if key not in held}
        if separator and "labels" in own:
            own["labels"] = separator.join(own["labels"])  # the form that training reads
        # If the input has a column of the same name, ours gets another name.
        return {unused_key(key, source.fields): value for key, value in own.items()}

    def without_rows() -> Iterable[str]:
        (result,) = predictor([BETWEEN if predictor.labels.pairs else ""], config.probabilities)
        return ours({**result, "explanation": {}} if config.explain else result)

    key = unused_key("words", source.fields, "given_")
    with (
        writer(config.output, suffix, source.fields, without_rows, source.delimiter, source.marked) as write,
        counting(None, "labelling") as progress,
    ):
        for result, (text, record) in zip(results, kept, strict=True):
            if columns:  # the words come first, whatever their field is called; words without a token get the tag _
                others = {name: value for name, value in record.items() if value is not text}
                record = {key: result["words"], **others}
                result["tags"] = [tag or "_" for tag in result["tags"]]
            without_text += blank(row_text(result), predictor.labels.pairs)
            write({**record, **ours(result)})
            progress(1)
            labelled += 1
    for line in source.bad.lines():
        print(line, file=sys.stderr)
    say_blank(predictor, str(config.input), labelled, without_text)
    say_cut(predictor, labelled)
    if labelled:
        say_unsure(predictor)
    say_where(config.output, labelled)


def say_blank(predictor: Predictor, source: str, rows: int, without_text: int) -> None:
    if without_text:
        nothing = "" if predictor.labels.task == "token" else ", and get no label"
        print(f"warning: {without_text:,} of {rows:,} rows hold no text{nothing}", file=sys.stderr)
    if not rows:
        print(f"warning: {source} holds no text", file=sys.stderr)


def say_cut(predictor: Predictor, rows: int) -> None:
    notes = dict[str, None]()  # each once, since most runs that vote read texts alike
    for one in (predictor, *predictor.others):
        if one.cut:
            which = f"{one.cut:,} of {rows:,} texts have" if rows > 1 else "the text has"
            lost = "" if one.labels.pairs else f", and the {one.truncation} was not read"
            notes[f"note: {which} more than {one.max_length} tokens{lost}"] = None
    for note in notes:
        print(note, file=sys.stderr)


def say_unsure(predictor: Predictor) -> None:
    """How much is left to people if ``min_score`` was given; in multi-label tasks it is a threshold only."""
    labels = predictor.labels
    if predictor.min_score is None or labels.task == "multi_label":
        return
    what = "texts" if labels.task == "sequence" else "entities" if labels.entities else "words"
    share = f"{predictor.unsure:,} of {predictor.sure + predictor.unsure:,}"
    print(f"note: {what} left to people, with a score below {predictor.min_score}: {share}", file=sys.stderr)


def say_where(output: str | None, rows: int) -> None:
    if output:
        print(f"Labelled  {display(Path(output).expanduser())}   ({counted(rows, 'row')})")


def as_given(text: Text, predictor: Predictor, cell: bool, columns: bool) -> Text:
    """The text as the predictor gets it: as words if the output has a tag per word, or a cell holds a list of words."""
    if isinstance(text, tuple):
        raise UserError("text_column names two columns, and the run takes one text", "Name one.")
    if predictor.labels.task != "token":
        return text if isinstance(text, str) else " ".join(text)
    if isinstance(text, str) and cell:
        text = words_in(text) or text
    return predictor.words_of(text) if columns and isinstance(text, str) else text


def predict(predictor: Predictor, texts: Iterable[Text], config: DictConfig) -> Iterator[Record]:
    """The predictions, with explanations if these are asked for."""
    results = predictor.stream(texts, config.probabilities)
    if not config.explain:
        return results
    from thaw.inference.explanation import explained

    return explained(predictor, results, config.run, config.explain, config.explain_evaluations, config.explain_page)


def written(result: Record, predictor: Predictor, suffix: str) -> Record:
    """A result as it is written: rounded, and in tables with a column for the probability of each label."""
    own = rounded(result)
    if suffix not in CELLS or "probabilities" not in own:
        return own
    each = own.pop("probabilities")  # of no label if there is no text
    return {**own, **{f"probability_{name}": each.get(name) for name in predictor.labels.names}}


def rounded(value: Any) -> Any:
    """A result with its scores rounded to `DIGITS`."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def data_of(folder: str) -> dict[str, Any]:
    """The ``data`` group of a run; empty for an exported folder that was moved out of its run."""
    run = Path(folder).expanduser()
    return plain(load_config(run).data) if (run / "config.yaml").is_file() else {}


def read_options(config: DictConfig, run: str, kind: str) -> Options:
    """How to read an input: in the way the run read its data, except for what the command says.

    The run's own text column is used if it can apply: a name in tables and JSON Lines, a position in files of the
    run's own format.
    """
    data, given = data_of(run), plain(config)
    pairs = isinstance(data.get("text_column"), list)
    like_own = data.get("format") in (None, kind) or {data["format"], kind} <= set(TABLES)
    if data.get("format") not in (None, kind):
        data.pop("quoting", None)  # a property of the run's file, not of this one
    data |= {key: given[key] for key in ("header", "quoting", "encoding") if given[key] is not None}
    own = data.get("text_column")
    by_place = kind == "conll" or (kind in TABLES and not data.get("header", True))
    if by_place != isinstance(own, int) or (by_place and not like_own):
        own = None
    column = own if given["text_column"] is None else given["text_column"]
    lenient = given["text_column"] is None and isinstance(own, str)
    return sources.options({**data, "text_column": column}, prefix="", lenient=lenient, pairs=pairs)


def show_result(result: Record) -> None:
    """Print one result for a human reader."""
    if "explanation" in result:
        from rich.console import Console

        from thaw.reporting.explanations import plot

        names = None if "entities" in result else result["labels"] if "labels" in result else [label_of(result)]
        Console().print(plot(result, names))
        return
    if "entities" in result:
        rows = [[one["text"], one["type"], number(one["score"])] for one in result["entities"]]
        print(table(f"{len(rows)} entities", ["text", "type", "score"], rows))
        return
    own = {} if result.get("score") is None else {label_of(result): result["score"]}
    scores = result.get("probabilities", result.get("scores", own))
    what = "guess" if "guess" in result and result["label"] is None else "label"
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    rows = [[name, number(score)] for name, score in ranked]
    print(table("", [what, "score"], rows) if rows else "no label")


def label_of(result: Record) -> str:
    """The label of a text, or the guess in its place."""
    return str(result.get("guess", result["label"]))

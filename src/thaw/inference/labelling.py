"""What ``predict.py`` does: one text, a file or a stream in; labels out, in order and in constant memory."""

import codecs
import csv
import itertools
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from thaw.data import sources
from thaw.data.formats import Table, format_of, json_object, read_table
from thaw.data.rows import Bad, Options, find_column, numbered, open_lines
from thaw.errors import UserError
from thaw.inference.attribution import check_method
from thaw.inference.predictor import Predictor
from thaw.reporting.progress import counting
from thaw.reporting.summary import number, table
from thaw.runs import atomic_write, check_not_over, display, finite, load_config

Record = dict[str, Any]
Records = Iterator[tuple[str, Record]]  # each with its text
TABLES = {"csv": ",", "tsv": "\t"}
FORMATS = ("jsonl", *TABLES)


def label(config: DictConfig) -> None:
    """Label what the config of ``predict.py`` names.

    Raises:
        UserError: when there is nothing to label, or a file cannot be read or written.
    """
    if OmegaConf.is_missing(config, "run"):
        raise UserError("run is missing", "Give the folder of a finished run: run=outputs/...")
    if (config.text is None) == (config.input is None):
        both = "takes text= or input=, not both" if config.input else "needs text= or input="
        raise UserError(f"predict.py {both}", 'Give text="I love this", or input=tickets.csv.')
    suffix = output_format(config.output)
    if config.output and config.input:
        check_not_over(config.output, config.input, "the input")
    if config.explain:
        check_method(config.explain, gradients=config.backend == "torch")
    fields: Collection[str] = ()
    if config.input is not None:
        options = table_options(config)
        fields, records = read_records(str(config.input), options)
        position = config.header is None and isinstance(config.text_column, int)
        if position and options.header and format_of(Path(str(config.input))) in TABLES:
            said = f"the first line names the columns: {', '.join(fields)}; header=false makes it a row"
            print(f"warning: {config.input}: {said}", file=sys.stderr)
    predictor = Predictor.from_run(config.run, config.batch_size, config.backend, config.calibrated)
    if config.input is None:
        (result,) = predict(predictor, [str(config.text)], config)
        if config.output is None and sys.stdout.isatty():
            show_result(result)
            return
        with writer(config.output, suffix) as write:
            write(result)
        return
    read, kept = itertools.tee(records)  # what is read ahead of the predictions waits between the two
    results = predict(predictor, (text for text, _ in read), config)
    labelled = blank = unread = 0
    with writer(config.output, suffix, fields) as write, counting(None, "labelling") as progress:
        for result, (text, record) in zip(results, kept, strict=True):
            if not (predictor.clean and config.explain):  # else what is explained is not the text of the record
                del result["text"]
            # A column of the input keeps its value; ours takes another name beside it.
            write({**record, **{free_name(key, fields): value for key, value in result.items()}})
            progress(1)
            labelled += 1
            blank += not text.strip()
            unread += "\ufffd" in text
    if unread:
        said = f"{unread:,} of {labelled:,} rows hold characters that are not {config.encoding}"
        print(f"warning: {said}: encoding=cp1252, say, reads those of Windows", file=sys.stderr)
    if blank:
        print(f"warning: {blank:,} of {labelled:,} rows hold no text; their labels mean nothing", file=sys.stderr)
    if config.output:
        print(f"Labelled  {display(Path(config.output).expanduser())}   ({labelled:,} rows)")


def predict(predictor: Predictor, texts: Iterable[str], config: DictConfig) -> Iterator[Record]:
    """The predictions, with their explanations where these are asked for."""
    results = predictor.stream(texts, config.probabilities)
    if not config.explain:
        return results
    from thaw.inference.explanation import explained

    return explained(predictor, results, config.run, config.explain, config.explain_evaluations, config.explain_page)


def free_name(key: str, taken: Collection[str], prefix: str = "predicted_") -> str:
    while key in taken:
        key = prefix + key
    return key


def table_options(config: DictConfig) -> Options:
    """How to read a table: as the run read its own, but for what the command says.

    The run's own column of texts counts where the table has it.
    """
    run = Path(config.run).expanduser()
    # What export.py wrote may stand alone, without a config.
    data: Any = OmegaConf.to_container(load_config(run).data) if (run / "config.yaml").is_file() else {}
    stated = {key: config[key] for key in ("header", "quoting", "encoding") if config[key] is not None}
    if data.get("format") not in (None, format_of(Path(str(config.input)))):
        data.pop("quoting", None)  # is a matter of the file
    data = {**data, **stated}
    own = data.get("text_column")
    if config.text_column is None and (isinstance(own, str) or not data.get("header", True)):
        return sources.options(data, group="", lenient=True)
    return sources.options({**data, "text_column": config.text_column}, group="")


def show_result(result: Record) -> None:
    """One result as a person reads it."""
    if "explanation" in result:
        from rich.console import Console

        from thaw.reporting.explanations import plot

        names = None if "entities" in result else result["labels"] if "labels" in result else [result["label"]]
        Console().print(plot(result, names))
        return
    if "entities" in result:
        rows = [[one["text"], one["type"], number(one["score"])] for one in result["entities"]]
        print(table(f"{len(rows)} entities", ["text", "type", "score"], rows))
        return
    chosen = result["probabilities"] if "probabilities" in result else result.get("scores")
    scores = chosen if chosen is not None else {result["label"]: result["score"]}
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    rows = [[name, number(score)] for name, score in ranked]
    print(table("", ["label", "score"], rows) if rows else "no label")


def read_records(source: str, options: Options) -> tuple[Collection[str], Records]:
    """The fields that records of the input have, and each record with its text.

    Args:
        source: a file, or ``-`` for lines of standard input.

    Raises:
        UserError: when the file is missing, of another format, or a record cannot be read.
    """
    if source == "-":
        return _lines(line for _, line in numbered(sys.stdin.buffer, options.encoding))
    path = Path(source).expanduser()
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise UserError(f"input={source}: {what}", "Give a file, or - for standard input.")
    kind = format_of(path)
    if kind == "txt":
        return _lines(line for _, line in open_lines(path, options.encoding))
    if kind in TABLES:
        return _table(path, options, TABLES[kind])
    if kind == "jsonl":
        # Read twice: any record may have a field that others lack, and what we add has one name in all of them.
        fields = dict.fromkeys(field for _, record in _objects(path, options) for field in record)
        return fields, _objects(path, options)
    raise UserError(
        f"input={source}: not a format that can be read", "Give .txt, .csv, .tsv or .jsonl, or .gz of these."
    )


def _lines(lines: Iterable[bytes]) -> tuple[Collection[str], Records]:
    texts = (line.decode("utf-8", "replace") for line in lines)
    return ["text"], ((text, {"text": text}) for text in texts)


def _table(path: Path, options: Options, delimiter: str) -> tuple[Collection[str], Records]:
    columns, records = read_table(path, options, delimiter)
    rows = _sound(path, records)
    if not columns:
        next(rows, None)  # what is wrong with the first row, where there is one
        raise UserError(f"{path}: the file is empty", "Give a file with rows.")
    text_at = columns.index(find_column(columns, "text", options, path))
    fields: list[str] = []
    for name in columns:
        fields.append(free_name(name, fields, "other_"))  # columns of one name are all kept
    return fields, ((row[text_at], dict(zip(fields, row, strict=True))) for row in rows)


def _sound(path: Path, records: Table) -> Iterator[list[str]]:
    for line, record in records:
        if isinstance(record, Bad):
            remedy = "Fix the row, or set quoting=none where quotes are plain characters, minimal where they are not."
            raise UserError(f"{path}:{line}: {record.problem}", remedy)
        yield [field.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for field in record]


def _objects(path: Path, options: Options) -> Records:
    for line, raw in open_lines(path, options.encoding):
        if not raw.strip():
            continue
        record = json_object(line, raw.decode("utf-8", "replace"))
        if isinstance(record, Bad):
            raise UserError(f"{path}:{line}: {record.problem}", "Fix the line.")
        text = record[find_column(list(record), "text", options, f"{path}:{line}")]
        if isinstance(text, list) and all(isinstance(word, str) for word in text):
            text = " ".join(text)
        if isinstance(text, list | dict):
            raise UserError(f"{path}:{line}: the text is neither text nor words", "Fix the line, or set text_column.")
        yield "" if text is None else str(text), record


def output_format(output: str | None) -> str:
    """The format that the name of the output states; JSON lines for standard output."""
    if output is None:
        return "jsonl"
    path = Path(output)
    kind = format_of(path)
    if kind not in FORMATS:
        raise UserError(f"output={output}: not a format that can be written", "Give .jsonl, .csv or .tsv, or .gz.")
    return kind


@contextmanager
def writer(output: str | None, kind: str, fields: Iterable[str] = ()) -> Iterator[Callable[[Record], None]]:
    """A function that writes one record; a file appears under its name only once it is complete.

    Args:
        fields: of the records of a table; what the first one has beyond them follows.
    """
    if output is None:
        # JSON can say every character in ASCII, where standard output is not in UTF-8.
        yield _to_json(sys.stdout, codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8")
        sys.stdout.flush()
        return
    path = Path(output).expanduser()
    try:
        with atomic_write(path, zipped=path.suffix.lower() == ".gz") as file:
            yield _to_json(file) if kind == "jsonl" else _to_table(file, TABLES[kind], fields)
            if not file.tell() and fields and kind != "jsonl":
                _row_writer(file, TABLES[kind])(fields)  # without rows
    except OSError as error:
        raise UserError(f"output={output}: cannot be written: {error.strerror}", "Choose another place.") from None


def _to_json(file: IO[str], escaped: bool = False) -> Callable[[Record], None]:
    def write(record: Record) -> None:
        file.write(json.dumps(finite(record), ensure_ascii=escaped, allow_nan=False) + "\n")

    return write


def _to_table(file: IO[str], delimiter: str, fields: Iterable[str]) -> Callable[[Record], None]:
    write_row = _row_writer(file, delimiter)
    columns: list[str] = []

    def cell(value: Any) -> Any:
        return json.dumps(finite(value), ensure_ascii=False) if isinstance(value, dict | list) else value

    def write(record: Record) -> None:
        if not columns:
            columns.extend(dict.fromkeys([*fields, *record]))
            write_row(columns)
        write_row([cell(record.get(name)) for name in columns])

    return write


def _row_writer(file: IO[str], delimiter: str) -> Callable[[Iterable[Any]], None]:
    rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(cells: Iterable[Any]) -> None:
        # The csv module leaves a lone carriage return without the quotes that it must have to be read again.
        (quoted if any("\r" in own for own in cells if isinstance(own, str)) else rows).writerow(cells)

    return write

"""What ``predict.py`` does: one text, a file or a stream in; labels out, in order and in constant memory."""

import csv
import gzip
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from thaw.data.formats import delimited_records, format_of
from thaw.data.rows import TEXT_COLUMNS, Options, find_column, open_lines
from thaw.errors import UserError
from thaw.inference.attribution import check_method
from thaw.inference.predictor import Predictor
from thaw.reporting.progress import counting
from thaw.reporting.summary import number, table
from thaw.runs import display

Record = dict[str, Any]
FORMATS = ("jsonl", "csv", "tsv")


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
    if config.output and config.input and os.path.realpath(config.output) == os.path.realpath(config.input):
        raise UserError(f"output={config.output}: this is the input", "Choose another place.")
    if config.explain:
        check_method(config.explain, gradients=config.backend == "torch")
    records = None if config.text is not None else read_records(str(config.input), config.text_column)
    predictor = Predictor.from_run(config.run, config.batch_size, config.backend, config.calibrated)
    if records is None:
        (result,) = predict(predictor, [str(config.text)], config)
        if config.output is None and sys.stdout.isatty():
            show_result(result)
            return
        with writer(config.output, suffix) as write:
            write(result)
        return
    waiting: deque[Record] = deque()
    labelled = blank = 0

    def texts() -> Iterator[str]:
        nonlocal blank
        for text, record in records:
            waiting.append(record)
            blank += not text.strip()
            yield text

    with writer(config.output, suffix) as write, counting(None, "labelling") as progress:
        for result in predict(predictor, texts(), config):
            del result["text"]
            record = waiting.popleft()
            # A column of the input keeps its value; ours takes another name beside it.
            write({**record, **{free_name(key, record): value for key, value in result.items()}})
            progress(1)
            labelled += 1
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


def free_name(key: str, record: Record) -> str:
    return f"predicted_{key}" if key in record else key


def show_result(result: Record) -> None:
    """One result as a person reads it."""
    if "explanation" in result:
        from rich.console import Console

        from thaw.reporting.explanations import plot

        names = result.get("labels") or [result["label"]] if "entities" not in result else None
        Console().print(plot(result, names))
        return
    if "entities" in result:
        rows = [[one["text"], one["type"], number(one["score"])] for one in result["entities"]]
        print(table(f"{len(rows)} entities", ["text", "type", "score"], rows))
        return
    chosen = result["probabilities"] if "probabilities" in result else result.get("scores")
    scores = chosen if chosen is not None else {result["label"]: result["score"]}
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    print(table("", ["label", "score"], [[name, number(score)] for name, score in ranked]))


def read_records(source: str, column: str | None) -> Iterator[tuple[str, Record]]:
    """The text of each record of the input, and the record with all its fields.

    Args:
        source: a file, or ``-`` for lines of standard input.
        column: of the text, in tables and JSON lines; None looks for a usual name.

    Raises:
        UserError: when the file is missing, of another format, or a record cannot be read.
    """
    if source == "-":
        return _lines(line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    path = Path(source).expanduser()
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise UserError(f"input={source}: {what}", "Give a file, or - for standard input.")
    kind = format_of(path)
    if kind == "txt":
        return _lines(line for _, line in open_lines(path))
    if kind in ("csv", "tsv"):
        return _fields(path, column, "," if kind == "csv" else "\t")
    if kind == "jsonl":
        return _objects(path, column)
    raise UserError(
        f"input={source}: not a format that can be read", "Give .txt, .csv, .tsv or .jsonl, or .gz of these."
    )


def _lines(lines: Iterable[bytes]) -> Iterator[tuple[str, Record]]:
    for line in lines:
        text = line.decode("utf-8", "replace")
        yield text, {"text": text}


def _fields(path: Path, column: str | None, delimiter: str) -> Iterator[tuple[str, Record]]:
    rows = delimited_records(path, Options(needs_label=False), delimiter)
    _, header = next(rows, (0, []))
    if not header:
        raise UserError(f"{path}: the file is empty", "Give a file with a header line.")
    name = find_column(header, column, TEXT_COLUMNS, "text", path, group="")
    for line, row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{path}:{line}: {len(row)} fields where the header has {len(header)}", "Mend the row.")
        decoded = [field.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for field in row]
        record = dict(zip(header, decoded, strict=True))
        yield record[name], record


def _objects(path: Path, column: str | None) -> Iterator[tuple[str, Record]]:
    for line, raw in open_lines(path):
        if not raw.strip():
            continue
        try:
            record = json.loads(raw.decode("utf-8", "replace"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{line}: not valid JSON: {error.msg}", "Mend the line.") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{line}: not a JSON object", "Mend the line.")
        text = record[find_column(list(record), column, TEXT_COLUMNS, "text", f"{path}:{line}", group="")]
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
def writer(output: str | None, kind: str) -> Iterator[Callable[[Record], None]]:
    """A function that writes one record; a file appears under its name only once it is complete."""
    if output is None:
        yield _to_json(sys.stdout)
        sys.stdout.flush()
        return
    path = Path(output).expanduser()
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open(partial, path.suffix == ".gz") as file:
            yield _to_json(file) if kind == "jsonl" else _to_table(file, "," if kind == "csv" else "\t")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"output={output}: cannot be written: {error.strerror}", "Choose another place.") from None


def _open(path: Path, zipped: bool) -> IO[str]:
    # Half of a surrogate pair, which JSON can escape and UTF-8 cannot write, becomes a question mark.
    if zipped:
        return gzip.open(path, "wt", encoding="utf-8", errors="replace", newline="")
    return path.open("w", encoding="utf-8", errors="replace", newline="")


def _to_json(file: IO[str]) -> Callable[[Record], None]:
    def write(record: Record) -> None:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")

    return write


def _to_table(file: IO[str], delimiter: str) -> Callable[[Record], None]:
    rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    columns: list[str] = []

    def cell(value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value

    def write(record: Record) -> None:
        if not columns:
            columns.extend(record)
            rows.writerow(columns)
        rows.writerow([cell(record.get(name)) for name in columns])

    return write

"""Label Studio's full JSON export, made flat as its JSON-MIN export is."""

from typing import Any

from thaw.data.rows import Bad


def flat_task(line: int, record: dict[str, Any]) -> dict[str, Any] | Bad:
    """A task with the fields of its data, and what the last annotation says, each under the name of its control.

    Entities are a list of spans; choices an object with a list of them, or a string where there is one, as in JSON-MIN.

    Args:
        line: of the record.

    Returns:
        Any other record unchanged; a task that has only cancelled annotations, or none, as `Bad`.
    """
    data, annotations = record.get("data"), record.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        return record
    finished = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    if not finished:
        return Bad(line, "the task has no annotation" + (" that was not cancelled" if annotations else ""))
    fields = dict(data)
    spans: dict[str, list[Any]] = {}
    for region in finished[-1].get("result") or []:
        match region:
            case {"type": "labels", "from_name": str(name), "value": value}:
                spans.setdefault(name, []).append(value)
            case {"type": "choices", "from_name": str(name), "value": {"choices": list(choices)}}:
                fields[name] = choices[0] if len(choices) == 1 else {"choices": choices}
    return fields | spans

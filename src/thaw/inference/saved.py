"""What a run folder, or an exported one, says about how to predict."""

from pathlib import Path
from typing import Any

from thaw.errors import UserError
from thaw.labels import required


def saved_options(saved: dict[str, Any], calibrated: bool, folder: str | Path) -> dict[str, Any]:
    """The options of a `Predictor` that stand in ``labels.json``.

    Args:
        saved: its content.
        calibrated: give probabilities at its temperature.
        folder: that holds it.

    Raises:
        UserError: when it has no temperature, or another version of thaw wrote it.
    """
    if calibrated and not saved.get("temperature"):
        raise UserError(f"{folder}: the run has no temperature", "Leave calibrated=true out, or train again.")
    max_length, clean, joined_by = required(saved, "max_length", "clean_html", "joined_by")
    # Not every run has these.
    others: dict[str, Any] = {key: saved[key] for key in ("truncation", "thresholds", "temperature") if key in saved}
    return {**others, "max_length": max_length, "clean": clean, "joined_by": joined_by, "calibrated": calibrated}

"""What ``explore.py`` does: look at data through a tokenizer before training."""

import os
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from thaw import files, runs
from thaw.data.module import TextDataModule
from thaw.data.survey import pieces_of
from thaw.errors import UserError
from thaw.exploration.measuring import measure
from thaw.hub import locate_encoder
from thaw.models.encoder import length_limit, load_tokenizer, resolve_length
from thaw.reporting import data_page
from thaw.settings import plain

OWN = ("text", "features", "pooling", "feature_rows", "output")  # settings that train.py does not have


def explore(config: DictConfig, overrides: Sequence[str]) -> None:
    """What ``explore.py`` does.

    Args:
        config: with ``output`` set, unless it has a ``text``.
        overrides: the settings as they were typed.
    """
    settings = plain(config)
    encoder, trust = locate_encoder(settings["model"]), settings["model"]["trust_remote_code"]
    limit = length_limit(encoder, trust)
    max_length = resolve_length(settings["data"]["max_length"], limit)
    if settings["text"] is not None:
        tokenizer, truncation = load_tokenizer(encoder, "sequence", trust), settings["data"]["truncation"]
        pieces = pieces_of(settings["text"], tokenizer, max_length, truncation)
        print(data_page.pieces_table(settings["text"], pieces, max_length))
        return
    folder = Path(settings["output"]).expanduser().absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"output={settings['output']}: {there} is not a writable folder", "Choose another.")
    settings["data"]["score_subwords"] = False  # each word is counted once
    whole = {"truncation": "end"} if settings["data"]["truncation"] == "windows" else {}  # each text is a row here
    read = {**settings["data"], **whole}
    data = TextDataModule(read, partial(load_tokenizer, encoder, trust_remote_code=trust), max_length, 0)
    data.prepare()
    if whole:
        data.summary["truncation"] = "windows"
    if settings["features"] and data.labels.task != "sequence":
        raise UserError(
            f"features=true needs one label per text, and this is a {data.labels.task} task", "Leave features out."
        )
    command = shlex.join(["python", "explore.py", *overrides])
    result = {"command": command, "name": settings["data"]["name"], "model": settings["model"]["name"]}
    result |= measure(data, limit)
    if settings["features"]:
        from thaw.exploration.features import features

        result["features"] = features(data, encoder, settings)
    shared = (item for item in overrides if item.partition("=")[0] not in OWN)
    result["next"] = shlex.join(["python", "train.py", *shared])
    data_page.write_page(folder / "data.html", result)
    files.write_json(folder / "data.json", result)
    for line in data_page.console(result):
        print(line)
    print(f"\nPage   {runs.display(folder / 'data.html')}")
    print(f"Train  {result['next']}")

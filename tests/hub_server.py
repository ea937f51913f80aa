"""A Hugging Face Hub on this machine, so that tests reach models and data sets the way users do, without the network.

Mocking the Hub's Python functions would only test our idea of them. Here the real clients (huggingface_hub,
transformers, datasets) talk HTTP to a server that answers as the Hub does: a subprocess started with ``HF_ENDPOINT``
at the server's address and an empty ``HF_HOME`` downloads, caches and later works offline exactly as it would outside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# An id is "owner/name", or just "name" for the oldest repositories. Revisions and paths arrive percent-encoded.
_REPO = r"(?P<id>[^/]+(?:/[^/]+)?)"
_AT = r"(?P<revision>[^/]+)"
_API = re.compile(
    rf"/api/(?P<type>models|datasets)/{_REPO}(?:/(?P<verb>revision|tree|paths-info)/{_AT}(?:/(?P<path>.+))?)?"
)
_FILE = re.compile(rf"/(?:(?P<type>datasets)/)?{_REPO}/resolve/{_AT}/(?P<path>.+)")


class _HubError(Exception):
    """An answer other than success. Clients tell its kinds apart by the header X-Error-Code, not by the status."""

    def __init__(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}


class _Repo:
    """One repository as it is on disk now: its files, their git hashes and the commit that these amount to.

    It is read anew for each request, so a test that changes a file has made a new commit, the only one there is.
    """

    def __init__(self, folder: Path, revision: str) -> None:
        if not folder.is_dir():
            # To a visitor without a token the Hub denies knowing of the repository: 401, where one might expect 404.
            raise _HubError(401, "RepoNotFound")
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.oids = {name: _sha1(b"blob %d\0" % len(data) + data) for name, data in self.files.items()}
        self.sha = _sha1(json.dumps(self.oids).encode())
        if revision not in ("main", self.sha):
            raise _HubError(404, "RevisionNotFound")

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every folder and every file, in the form that both ``tree`` and ``paths-info`` give."""
        for folder in sorted({parent.as_posix() for name in self.files for parent in Path(name).parents} - {"."}):
            yield {"type": "directory", "oid": _sha1(folder.encode()), "size": 0, "path": folder}
        for name, data in self.files.items():
            yield {"type": "file", "oid": self.oids[name], "size": len(data), "path": name}

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """The entries below a folder ('' is the root): all of them, or only its direct children."""
        prefix = f"{folder}/" if folder else ""
        below = [entry for entry in self.entries() if entry["path"].startswith(prefix)]
        if folder and not below:
            raise _HubError(404, "EntryNotFound")
        return [entry for entry in below if recursive or "/" not in entry["path"].removeprefix(prefix)]

    def info(self, repo_id: str, sizes: bool) -> dict[str, Any]:
        """What ``model_info`` and ``dataset_info`` read, with sizes only when asked for, as on the Hub."""
        files = [entry for entry in self.entries() if entry["type"] == "file"]
        extras = [{"size": file["size"], "blobId": file["oid"]} if sizes else {} for file in files]
        siblings = [{"rfilename": file["path"], **extra} for file, extra in zip(files, extras, strict=True)]
        return {"id": repo_id, "sha": self.sha, "private": False, "gated": False, "tags": [], "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. It keeps to HTTP/1.0, so that no open connection outlives the server."""

    server: HubServer

    def do_GET(self) -> None:
        """Answer GET, HEAD (the same without a body) and POST (the same with its arguments in the body)."""
        url = urlsplit(self.path)
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self.server.requests.append((self.command, unquote(url.path)))
        try:
            if match := _API.fullmatch(url.path):
                self._answer_api(match, parse_qs(url.query), form)
            elif match := _FILE.fullmatch(url.path):
                self._answer_file(match)
            else:
                raise _HubError(404, "NotFound")
        except _HubError as error:
            self._send(error.status, json.dumps({"error": str(error)}).encode(), error.headers)

    do_HEAD = do_POST = do_GET

    def _answer_api(self, match: re.Match[str], query: dict[str, list[str]], form: dict[str, list[str]]) -> None:
        repo = self._repo(match)
        result: Any = repo.info(unquote(match["id"]), sizes="blobs" in query)
        if match["verb"] == "tree":
            result = repo.tree(unquote(match["path"] or ""), recursive=query.get("recursive") == ["true"])
        elif match["verb"] == "paths-info":
            result = [entry for entry in repo.entries() if entry["path"] in form.get("paths", [])]
        self._send(200, json.dumps(result).encode(), {"Content-Type": "application/json"})

    def _answer_file(self, match: re.Match[str]) -> None:
        repo, path = self._repo(match), unquote(match["path"])
        commit = {"X-Repo-Commit": repo.sha}  # also when the file is missing: clients remember what a commit lacks
        if path not in repo.files:
            raise _HubError(404, "EntryNotFound", commit)
        data, headers = repo.files[path], {**commit, "ETag": f'"{repo.oids[path]}"', "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self._send(200, data, headers)
        elif (start := int(part[1])) >= len(data):
            self._send(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        else:
            chunk = data[start : int(part[2]) + 1 if part[2] else None]
            sent = f"bytes {start}-{start + len(chunk) - 1}/{len(data)}"
            self._send(206, chunk, {**headers, "Content-Range": sent})

    def _repo(self, match: re.Match[str]) -> _Repo:
        folder = self.server.root / (match["type"] or "models") / unquote(match["id"])
        return _Repo(folder, unquote(match["revision"] or "main"))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: ``HubServer.requests`` is the log."""


class HubServer(ThreadingHTTPServer):
    """Serves the repositories in ``root`` while its ``with`` block runs.

    ``root`` holds ``models/<owner>/<name>/...`` and ``datasets/<owner>/<name>/...``. ``requests`` lists the method and
    path of every request seen, so that a test can assert what was downloaded, and that nothing was downloaded twice.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str]] = []

    def __enter__(self) -> HubServer:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()  # returns once serve_forever has
        self.server_close()


def _sha1(data: bytes) -> str:
    """The hash by which git names everything."""
    return hashlib.sha1(data).hexdigest()

"""A Hugging Face Hub on this machine, so that tests reach models and data sets the way users do, without the network.

Mocking the Hub's Python functions would only test our idea of them. Here the real clients (huggingface_hub,
transformers, datasets) talk HTTP to a server that answers as the Hub does: a subprocess started with ``HF_ENDPOINT``
at the server's address and an empty ``HF_HOME`` downloads, caches and later works offline exactly as it would outside.
Uploads go the way of git LFS, which the Hub keeps beside Xet: set ``HF_HUB_DISABLE_XET``.
"""

from __future__ import annotations

import base64
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
_WRITE = re.compile(rf"/api/(?P<type>models|datasets)/{_REPO}/(?P<verb>preupload|commit)/{_AT}")
_LFS = re.compile(rf"/{_REPO}\.git/info/lfs/objects/batch")
USER, TOKEN = "someone", "hf_of_someone"  # who may create and fill repositories
_LARGE = (".safetensors", ".onnx", ".bin")  # kept outside git, by the .gitattributes of a new repository
_FILE = re.compile(rf"/(?:(?P<type>datasets)/)?{_REPO}/resolve/{_AT}/(?P<path>.+)")


class _HubError(Exception):
    """An answer other than success. Clients tell its kinds apart by the header X-Error-Code, not by the status."""

    def __init__(
        self, status: int, code: str, headers: Mapping[str, str] | None = None, body: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"error": code, **(body or {})}
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
        body = self._body()
        self.server.requests.append((self.command, unquote(url.path)))
        try:
            if self._answer_write(url.path, body):
                return
            form = parse_qs(body.decode())
            if match := _API.fullmatch(url.path):
                self._answer_api(match, parse_qs(url.query), form)
            elif match := _FILE.fullmatch(url.path):
                self._answer_file(match)
            else:
                raise _HubError(404, "NotFound")
        except _HubError as error:
            self._send(error.status, json.dumps(error.body).encode(), error.headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def _body(self) -> bytes:
        """What came with the request, of a stated length or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer_write(self, path: str, body: bytes) -> bool:
        """Answer what creates or fills a repository; False for all other requests."""
        if path.startswith("/lfs/"):  # the storage, to which the address itself is the key
            if hashlib.sha256(body).hexdigest() != path.removeprefix("/lfs/"):
                raise _HubError(400, "BadRequest")
            self.server.large[path.removeprefix("/lfs/")] = body
            self._send(200, b"", {})
            return True
        write, lfs = _WRITE.fullmatch(path), _LFS.fullmatch(path)
        if not (write or lfs or path in ("/api/repos/create", "/api/validate-yaml")):
            return False
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _HubError(401, "InvalidToken")
        result: dict[str, Any] = {}
        if path == "/api/repos/create":
            result = self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            if not json.loads(body)["content"].startswith("---\n"):
                raise _HubError(400, "BadRequest")
        elif lfs:
            result = {"transfer": "basic", "objects": [self._place(item) for item in json.loads(body)["objects"]]}
        elif write and write["verb"] == "preupload":
            self._repo(write)
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(_LARGE) else "regular" for name in files}
            result = {"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in files]}
        elif write:
            result = self._commit(write, [json.loads(line) for line in body.splitlines()])
        self._send(200, json.dumps(result).encode(), {"Content-Type": "application/json"})
        return True

    def _create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        owner = wanted.get("organization") or USER
        if owner != USER:
            raise _HubError(403, "Forbidden")
        folder = self.server.root / "models" / owner / wanted["name"]
        url = {"url": f"{self.server.endpoint}/{owner}/{wanted['name']}"}
        if folder.is_dir():
            raise _HubError(409, "AlreadyExists", body=url)
        folder.mkdir(parents=True)
        return url

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        """Where a large file is to be put; nowhere when it is there."""
        known = item["oid"] in self.server.large
        put = {"upload": {"href": f"{self.server.endpoint}/lfs/{item['oid']}"}}
        return {**item, **({} if known else {"actions": put})}

    def _commit(self, match: re.Match[str], lines: list[dict[str, Any]]) -> dict[str, Any]:
        self._repo(match)
        folder = self.server.root / match["type"] / unquote(match["id"])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                continue
            data = base64.b64decode(value["content"]) if line["key"] == "file" else self.server.large[value["oid"]]
            path = folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        sha = self._repo(match).sha
        return {"commitUrl": f"{self.server.endpoint}/{match['id']}/commit/{sha}", "commitOid": sha}

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
        self.large: dict[str, bytes] = {}  # files outside git, by their sha256

    def __enter__(self) -> HubServer:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()  # returns once serve_forever has
        self.server_close()


def _sha1(data: bytes) -> str:
    """The hash by which git names everything."""
    return hashlib.sha1(data).hexdigest()

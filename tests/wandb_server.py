"""As much of the W&B server on this machine as saving a report and beginning a run take: tests see what is sent.

The real client (wandb, with its service process) talks GraphQL to it over HTTP: with ``WANDB_BASE_URL`` at
the server's address and ``WANDB_API_KEY`` set to `KEY`, nothing leaves this machine.
"""

from __future__ import annotations

import base64
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

KEY = "0123456789abcdef" * 3  # of an account that does not exist
ENTITY = "someone"


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. It keeps to HTTP/1.0, so that no open connection outlives the server."""

    server: WandbServer

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/graphql":
            self._send(404, {})  # the client's own statistics
            return
        body = json.loads(sent)
        operation = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
        name, variables = operation[1] if operation else "", body.get("variables") or {}
        self.server.requests.append((name, variables))
        expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers["Authorization"] != expected:
            self._send(401, {"errors": [{"message": "invalid API key"}]})
        elif (data := self._answer(name, variables)) is None:
            self._send(400, {"errors": [{"message": f"{name} is not known here"}]})
        else:
            self._send(200, {"data": data})

    def _answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        project = {"id": "UHJvamVjdA==", "internalId": "UHJvamVjdA==", "name": variables.get("projectName", "")}
        match name.lower():
            case "viewer" | "getviewer" | "getdefaultentity":
                viewer = {"id": "VXNlcg==", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "flags": "{}"}
                return {"viewer": {**viewer, "teams": {"edges": []}}}
            case "getprojects":
                return {"models": self._projects(variables["entity"])}
            case "runs":
                group = json.loads(variables["filters"])["group"]
                runs = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
                count = self.server.projects.get(variables["project"], {}).get(group, 0)
                return {"project": {**project, "runCount": count, "readOnly": False, "runs": runs}}
            case "runresumestatus":
                return {"model": {**project, "entity": {"id": "RW50aXR5", "name": ENTITY}, "bucket": None}}
            case "upsertbucket":
                owner = {"id": "UHJvamVjdA==", "name": "thaw", "entity": {"id": "RW50aXR5", "name": ENTITY}}
                run = {"id": "UnVu", "name": variables["name"], "config": "{}", "sweepName": None, "project": owner}
                return {"upsertBucket": {"bucket": {**run, "historyLineCount": 0}, "inserted": True}}
            case "upsertview":
                kept = {key: variables[key] for key in ("name", "displayName", "description", "spec")}
                owner = {**project, "entityName": variables["entityName"]}
                view = {"id": "Vmlldzox", "type": "runs", "project": owner, "updatedAt": "2026-11-21T10:15:30Z", **kept}
                return {"upsertView": {"view": view, "inserted": True}}
        return None

    def _projects(self, entity: str) -> dict[str, Any] | None:
        if entity != ENTITY:
            return None
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"pageInfo": page, "edges": [{"node": self._node(name)} for name in self.server.projects]}

    def _node(self, name: str) -> dict[str, Any]:
        times = {"createdAt": "2026-11-21T10:15:30Z", "isBenchmark": False, "user": None}
        return {"__typename": "Project", "id": "UHJvamVjdA==", "name": name, "entityName": ENTITY, **times}

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: ``WandbServer.requests`` is the log."""


class WandbServer(ThreadingHTTPServer):
    """Serves while its ``with`` block runs.

    Args:
        projects: of `ENTITY`: name -> how many runs each group has.

    Attributes:
        requests: the GraphQL operations asked for, with their variables.
    """

    def __init__(self, projects: dict[str, dict[str, int]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.projects = projects
        self.requests: list[tuple[str, dict[str, Any]]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find this server."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": KEY}

    def __enter__(self) -> WandbServer:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()

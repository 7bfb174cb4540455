"""A server that speaks the part of Prefect's REST API that is used."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakePrefect:
    """Runs are kept by idempotency key."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.cancelled: list[str] = []
        self.broken = False
        self.deployments = {"retrain/toy-binary": {"id": "d1", "parameters": {"project": "p", "trigger": "schedule"}}}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(outer.get(self.path.removeprefix("/api")))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(outer.post(self.path.removeprefix("/api"), body))

            def _answer(self, content: Any) -> None:
                self.send_response(500 if outer.broken else 404 if content is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"

    def get(self, path: str) -> Any:
        if path.startswith("/deployments/name/"):
            return self.deployments.get(path.removeprefix("/deployments/name/"))
        if path.startswith("/flow_runs/"):
            wanted = path.removeprefix("/flow_runs/")
            return next((run for run in self.runs.values() if run["id"] == wanted), None)
        return True if path == "/health" else None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/set_state"):
            self.cancelled.append(path.split("/")[2])
            return {}
        run = {"id": f"run-{len(self.runs) + 1}", "state_type": "SCHEDULED", "parameters": body["parameters"]}
        return self.runs.setdefault(body["idempotency_key"], run)

    def end(self, state: str) -> None:
        for run in self.runs.values():
            run["state_type"] = state

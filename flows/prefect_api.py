"""Prefect's REST API, the few calls that dispatching needs; Prefect itself takes a second and 80 MB to import."""

from __future__ import annotations

import base64
import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from core.errors import NotFoundError, PrefectError

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_NOT_FOUND = 404


@dataclass(frozen=True)
class PrefectApi:
    """A Prefect server.

    Attributes
    ----------
    url : str
        Address of its API, as in ``PREFECT_API_URL``.
    timeout_s : float
        Time for one call, s.
    """

    url: str
    timeout_s: float = 10.0

    def is_healthy(self) -> bool:
        """Tell whether the server answers."""
        try:
            return bool(self._call("GET", "/health"))
        except PrefectError:
            return False

    def has_pool(self, name: str) -> bool:
        """Tell whether a work pool exists.

        Raises
        ------
        PrefectError
            If the server does not answer.
        """
        try:
            self._call("GET", f"/work_pools/{name}")
        except NotFoundError:
            return False
        return True

    def submit(self, deployment: str, parameters: dict[str, Any], idempotency_key: str) -> str:
        """Create a flow run and return its id; the same key returns the same run.

        Parameters
        ----------
        deployment : str
            ``flow/name``.

        Raises
        ------
        PrefectError
            If the server does not answer, or has no such deployment.
        """
        try:
            found = self._call("GET", f"/deployments/name/{deployment}")
        except NotFoundError as error:
            raise PrefectError(
                f"Prefect at {self.url} has no deployment {deployment} (404): deploy the flows of this project, with "
                "'make deploy PROJECT=<its folder>', or with Compose 'docker compose up prefect-deploy'"
            ) from error
        body = {
            "parameters": {**found["parameters"], **parameters},
            "idempotency_key": idempotency_key,
            "state": {"type": "SCHEDULED", "message": "decided by headrace"},
            "name": idempotency_key.replace("/", "-attempt-"),
        }
        return str(self._call("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def state(self, flow_run: str) -> str | None:
        """Return the type of a run's state, such as RUNNING; None if there is no such run.

        Raises
        ------
        PrefectError
            If the server does not answer.
        """
        try:
            return str(self._call("GET", f"/flow_runs/{flow_run}")["state_type"])
        except NotFoundError:
            return None

    def crash_unfinished(self) -> int:
        """Set every run that was under way to CRASHED: for a server of our own whose worker has gone; return how many.

        Raises
        ------
        PrefectError
            If the server does not answer.
        """
        wanted = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
        runs = self._call("POST", "/flow_runs/filter", wanted)
        state = {"type": "CRASHED", "message": "its worker was stopped"}
        for run in runs:
            self._call("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        return len(runs)

    def cancel(self, flow_run: str) -> None:
        """Ask for a run to be cancelled; one that has ended or is not known stays as it is.

        Raises
        ------
        PrefectError
            If the server does not answer.
        """
        body = {"state": {"type": "CANCELLING", "message": "too old: another attempt takes over"}}
        try:
            self._call("POST", f"/flow_runs/{flow_run}/set_state", body)
        except NotFoundError:
            return

    def end(self, flow_run: str) -> None:
        """Set a run that is suspended to CANCELLED: no process would do it; one that is not known stays as it is.

        Raises
        ------
        PrefectError
            If the server does not answer.
        """
        state = {"type": "CANCELLED", "message": "answered elsewhere"}
        try:
            self._call("POST", f"/flow_runs/{flow_run}/set_state", {"state": state, "force": True})
        except NotFoundError:
            return

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the user's own address
            self.url.rstrip("/") + path, data, {"Content-Type": "application/json", **_credentials()}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            said = f"Prefect at {self.url}: {method} {path}: {error.code} {_beginning(error)}"
            raise (NotFoundError if error.code == _NOT_FOUND else PrefectError)(said) from error
        except (OSError, ValueError, http.client.HTTPException) as error:  # the last: killed in the middle of an answer
            raise PrefectError(
                f"Prefect at {self.url} cannot be reached: {error}; is it running, and is PREFECT_API_URL right?"
            ) from error


def _beginning(answer: urllib.error.HTTPError) -> str:
    try:
        return answer.read(300).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _credentials() -> dict[str, str]:
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}

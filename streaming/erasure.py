"""Which ids are to be erased: asked for in the shared state, where every worker of the project sees it.

An id is not written down for that: it has a name, a keyed hash with the key that signs snapshots. A partition goes
through the ids that it knows and forgets those with such a name. That is an action in its journal, so that a repetition
forgets at the same step; and until it has come to that action, no row of such an id goes into the tables.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time

from core.errors import StoreError
from core.project import Project
from streaming.phases import Phases
from streaming.snapshot_file import load_key
from streaming.state_store import open_store

_PREFIX = "erase."
_NAME_BYTES = 16
_log = logging.getLogger("headrace.worker")


def name_in(request: str) -> str:
    """Return the name of the id that a request is about: the same id may be erased again later.

    Examples
    --------
    >>> name_in("0f1e-1700000000000")
    '0f1e'
    """
    return request.partition("-")[0]


class Erasures:
    """The requests to erase ids.

    Parameters
    ----------
    project : Project
        Says where the shared state is.
    every_s : float
        Time between two looks, s.
    """

    def __init__(self, project: Project, every_s: float = 2.0) -> None:
        self._store = open_store(project.checkpoints, Phases())
        self._key = load_key(project.state)
        self._every_s = every_s
        self._looked_at = -every_s
        self._known: frozenset[str] = frozenset()

    def name(self, event_id: str) -> str:
        """Return the name of an id, as it is in tables: 32 hexadecimal digits."""
        content = b"erase\0" + event_id.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, content, hashlib.sha256).digest()[:_NAME_BYTES].hex()

    def ask(self, name: str) -> str:
        """Have every partition forget the id of this name; return the request, which is name and moment.

        Raises
        ------
        StoreError, OSError
            If it cannot be written.
        """
        request = f"{name}-{time.time_ns()}"
        self._store.write(f"{_PREFIX}{request}", b"")
        return request

    def asked(self) -> frozenset[str]:
        """Return all requests, as last known where that cannot be read now."""
        if time.monotonic() - self._looked_at >= self._every_s:
            try:
                self.look()
            except (StoreError, OSError) as error:
                _log.warning("which ids are to be erased cannot be read, tried again: %s", error)
            self._looked_at = time.monotonic()
        return self._known

    def look(self) -> None:
        """Read the requests anew.

        Raises
        ------
        StoreError, OSError
            If they cannot be read.
        """
        self._known = frozenset(name.removeprefix(_PREFIX) for name in self._store.names(_PREFIX))
        self._looked_at = time.monotonic()

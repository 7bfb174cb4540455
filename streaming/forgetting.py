"""What a partition does about ids that are erased: it forgets what it knows of them, and does not take them in again.

Their names are kept as long as such an id would have been, so that neither a repeated event nor a late label
brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streaming.erasure import name_in
from streaming.state import State


class Forgetting:
    """Forgets ids that are erased.

    Parameters
    ----------
    state : State
        Of the partition.
    name : callable or None
        Gives the name under which an id is erased; needed where one is.
    """

    def __init__(self, state: State, name: Callable[[str], str] | None) -> None:
        self._state = state
        self._name = name
        self._until = _known_until(state)

    def forget(self, requests: Sequence[str]) -> None:
        """Forget the ids that these requests name: an event that waits expires, a label that waits has no event."""
        assert self._name is not None
        state, wanted, found = self._state, {name_in(request) for request in requests}, {}
        for event_id in [known for known in state.join.ids() if self._name(known) in wanted]:
            was = state.join.forget(event_id)
            found[self._name(event_id)] = str(was)
            state.books.events.expired += was == "pending"
            state.books.events.erased += was == "pending"
            state.books.labels.orphaned += was == "label"
        until = state.clock + 2 * state.join.horizon
        made = {request: (until, found.get(name_in(request), "nothing")) for request in requests}
        state.erased = {**state.erased, **made}
        self._until = _known_until(state)

    def is_erased(self, event_id: str) -> bool:
        """Tell whether an id is one of those."""
        if not self._until or self._name is None:
            return False
        return self._state.clock <= self._until.get(self._name(event_id), -1)


def _known_until(state: State) -> dict[str, int]:
    """Return until when each erased id is known, ms, by its name."""
    return {name_in(request): until for request, (until, _) in sorted(state.erased.items())}

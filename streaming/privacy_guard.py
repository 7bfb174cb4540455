"""Whether what is personal now was so from the beginning, and is hashed with the same key: else nothing starts.

Beside the snapshots a small file says what was marked and which key was used (its fingerprint). With another key no
label would find its event and no hash its earlier self; and a mark that comes later would be a promise that the rows
from before do not keep.
"""

from __future__ import annotations

import json
from typing import Any

from core.errors import CheckpointError
from core.pii_key import load_pseudonyms
from core.project import Project
from core.pseudonyms import Pseudonyms
from core.store import TableStore
from core.tables import PREDICTIONS
from streaming.phases import Phases
from streaming.state_store import StateStore, open_store

_NAME = "privacy.json"
_CLEAR = "clear"


def guard(project: Project) -> Pseudonyms | None:
    """Return the project's hashes, after comparing key and marks with those that its state was made with.

    Raises
    ------
    SettingsError
        If there is no key, and one is needed.
    CheckpointError
        If the key is another, or what was in clear so far is personal now.
    StoreError, OSError
        If the state cannot be read or written.
    """
    pseudonyms = load_pseudonyms(project)
    store = open_store(project.checkpoints, Phases())
    known: dict[str, Any] | None = json.loads(store.read(_NAME)) if _NAME in store.names(_NAME) else None
    if known is None and not project.settings.is_personal:
        return pseudonyms
    now = _marks(project, pseudonyms)
    if known is None:
        _refuse_late_marks(project, store)
    else:
        _refuse_other(project, known, now)
    if known != now:
        store.write(_NAME, json.dumps(now, indent=1).encode())
    return pseudonyms


def _marks(project: Project, pseudonyms: Pseudonyms | None) -> dict[str, Any]:
    settings = project.settings
    return {
        "key": pseudonyms.fingerprint if pseudonyms else None,
        "id": settings.privacy.id or _CLEAR,
        "fields": {name: field.pii or _CLEAR for name, field in settings.fields.items()},
    }


def _refuse_late_marks(project: Project, store: StateStore) -> None:
    if store.names("partition-") or TableStore(project.tables).exists(PREDICTIONS):
        raise CheckpointError(
            f"{project.settings.name}: fields or the id are personal now, and were in clear so far: tables, reports, "
            f"models and topics hold such values; {_start_anew(project)}, or take the marks (pii, privacy.id) out again"
        )


def _refuse_other(project: Project, known: dict[str, Any], now: dict[str, Any]) -> None:
    if None not in (known["key"], now["key"]) and known["key"] != now["key"]:
        raise CheckpointError(
            f"{project.settings.name}: the key of pii: hash (HEADRACE_PII_KEY or privacy.key_file) is not the one that "
            "the state was made with, so that no hash would match: labels would not find their events. Give the "
            f"earlier key back; or, without it, {_start_anew(project)}"
        )
    if known["id"] != now["id"]:
        raise CheckpointError(
            f"{project.settings.name}: privacy.id was {known['id']} so far and is {now['id']} now, so that no id would "
            f"match: set it back, or {_start_anew(project)}"
        )
    late = [name for name, mark in now["fields"].items() if mark != _CLEAR and known["fields"].get(name) == _CLEAR]
    if late:
        raise CheckpointError(
            f"{project.settings.name}: field {late[0]!r} is personal now, and was in clear so far: what was written "
            f"holds its values; {_start_anew(project)}, or give the field another name and mark that"
        )


def _start_anew(project: Project) -> str:
    shared = "" if project.shared == project.state else f" and {project.shared}"
    return f"start anew: move {project.state}{shared} away and delete the topic {project.settings.journal_topic}"

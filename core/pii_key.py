"""Where the secret key of a project's hashes comes from: the environment or a file, never the project file."""

from __future__ import annotations

import os

from core.errors import SettingsError
from core.project import Project
from core.pseudonyms import Pseudonyms, needs_key

_SHORTEST_KEY = 16
_MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"


def load_pseudonyms(project: Project) -> Pseudonyms | None:
    """Return the project's hashes; None where nothing is to be hashed.

    Raises
    ------
    SettingsError
        If something is to be hashed and there is no key, or one that is too short.
    """
    if not needs_key(project.settings):
        return None
    secret, where = _secret(project)
    if len(secret) < _SHORTEST_KEY:
        raise SettingsError(
            f"{where}: the key of pii: hash has {len(secret)} bytes, at least {_SHORTEST_KEY} are needed; {_MAKE_ONE}"
        )
    return Pseudonyms(secret)


def _secret(project: Project) -> tuple[bytes, str]:
    if given := os.environ.get("HEADRACE_PII_KEY"):
        return given.encode("utf-8", "surrogateescape").strip(), "HEADRACE_PII_KEY"
    named = project.settings.privacy.key_file
    if named is None:
        raise SettingsError(
            f"{project.folder}: pii: hash needs a secret key: give it in HEADRACE_PII_KEY, or name its file in "
            f"privacy.key_file; {_MAKE_ONE}"
        )
    path = project.folder / named
    try:
        return path.read_bytes().strip(), str(path)
    except OSError as error:
        raise SettingsError(
            f"{path}: privacy.key_file cannot be read: {error.strerror}; put the key there that this project began "
            "with, or give it in HEADRACE_PII_KEY"
        ) from error

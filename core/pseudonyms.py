"""Keyed hashes in place of personal values: equal values stay equal, and only who has the key can try values out.

The key comes from the environment or from a file, never from the project file. The same key gives the same hashes on
every machine, in every partition, at every start.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from core.settings import Settings

_HASH_BYTES = 16


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Hashes with one key.

    Attributes
    ----------
    secret : bytes
        The key, of any length.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(b"a secret of the project")
    >>> pseudonyms.of_field("email", "ada@example.org")
    'aaae2f20e5e551259da2bce7b7b32c3f'
    >>> pseudonyms.of_field("email", "ada@example.org") == pseudonyms.of_field("name", "ada@example.org")
    False
    """

    secret: bytes

    def of_id(self, event_id: str) -> str:
        """Return the hash of an event's id: 32 hexadecimal digits."""
        return self._hash(b"id", event_id.encode("utf-8", "surrogatepass"))

    def of_field(self, name: str, value: str) -> str:
        """Return the hash of a field's value; that of the same value in another field is another."""
        return self._hash(b"field:" + name.encode(), value.encode("utf-8", "surrogatepass"))

    def of_bytes(self, content: bytes) -> str:
        """Return the hash of a record's value as it came."""
        return self._hash(b"bytes", content)

    @property
    def fingerprint(self) -> str:
        """Tells keys apart without giving one away: kept beside the state."""
        return self._hash(b"fingerprint", b"")

    @cached_property
    def _key(self) -> bytes:
        return hashlib.blake2b(self.secret, person=b"headrace-pii").digest()

    def _hash(self, purpose: bytes, content: bytes) -> str:
        return hashlib.blake2b(purpose + b"\0" + content, digest_size=_HASH_BYTES, key=self._key).hexdigest()


def needs_key(settings: Settings) -> bool:
    """Tell whether anything is hashed."""
    return settings.privacy.id is not None or any(field.pii == "hash" for field in settings.fields.values())

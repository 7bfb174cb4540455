"""The chain over the ledger: each record's hash covers the hash before it, so that a change shows. Pure.

Who can write the file can also compute a whole new chain. So its head (the latest hash) is worth keeping elsewhere:
each registered version carries the one of its time, and ``headrace history --verify --head`` looks for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

START = hashlib.sha256(b"headrace ledger").hexdigest()
"""What the first record follows."""


@dataclass(frozen=True)
class Link:
    """A record as it is in the file; `hash` is None where a headrace without the chain wrote it."""

    kind: str
    key: str
    event_time: int | None
    written_at: float
    body: str
    hash: str | None = None


@dataclass(frozen=True)
class ChainCheck:
    """What a look at every record found.

    Attributes
    ----------
    records : int
        How many there are.
    unsealed : int
        Those from before the chain: only a hash that came later covers them.
    head : str
        The hash over everything.
    problems : tuple of str
        Where the chain does not hold; empty if it is whole.
    hashes : frozenset of str
        Every head that the ledger has had.
    """

    records: int
    unsealed: int
    head: str
    problems: tuple[str, ...]
    hashes: frozenset[str]


def hash_after(before: str, link: Link) -> str:
    """Return the hash of a record that follows the hash `before`.

    Examples
    --------
    >>> record = Link("alert", "w1", 0, 1.5, '{"reasons": []}')
    >>> hash_after(START, record)[:12]
    'c9146b682d5c'
    """
    content = json.dumps([before, link.kind, link.key, link.event_time, link.written_at, link.body])
    return hashlib.sha256(content.encode()).hexdigest()


def head_of(links: Iterable[Link], before: str = START) -> str:
    """Return the head after these records, the oldest first."""
    for link in links:
        before = link.hash or hash_after(before, link)
    return before


def check_chain(links: Iterable[Link]) -> ChainCheck:
    """Look at every record, the oldest first, and say where the chain does not hold.

    Examples
    --------
    >>> sealed = hash_after(START, Link("alert", "w1", 0, 1.5, "{}"))
    >>> check_chain([Link("alert", "w1", 0, 1.5, "{}", sealed)]).problems
    ()
    >>> check_chain([Link("alert", "w1", 0, 1.5, '{"a": 1}', sealed)]).problems
    ('record 1, alert w1: it, or what stood before it, was changed, put in or taken out',)
    """
    head, count, unsealed, problems, hashes = START, 0, 0, [], {START}
    for link in links:
        count += 1
        name = f"record {count}, {link.kind} {link.key}"
        follows = hash_after(head, link)
        if link.hash is None:
            unsealed += 1
            if count > unsealed:
                problems.append(f"{name}: has no hash: an older headrace wrote it, or somebody put it in")
        elif link.hash != follows:
            problems.append(f"{name}: it, or what stood before it, was changed, put in or taken out")
        head = link.hash or follows
        hashes.add(head)
    return ChainCheck(count, unsealed, head, tuple(problems), frozenset(hashes))

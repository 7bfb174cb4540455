"""A consumer group inside one process: shares out partitions, moves them one by one, forgets who vanishes."""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock

from streaming.transport import Rebalance


class MemoryGroup:
    """Partitions, each with one owner at a time.

    Parameters
    ----------
    name : str
        The group's.
    partitions : int
        How many partitions there are to share out.

    Examples
    --------
    >>> group = MemoryGroup("g", 2)
    >>> first = group.join()
    >>> sorted(first.poll().assigned)
    [0, 1]
    >>> second = group.join()
    >>> (revoked,) = first.poll().revoked
    >>> second.poll().assigned
    frozenset()
    >>> first.release([revoked])
    >>> second.poll().assigned == {revoked}
    True
    """

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.lock = RLock()
        self._owners: dict[int, MemoryMembership | None] = dict.fromkeys(range(partitions))
        self._members: list[MemoryMembership] = []

    def join(self) -> MemoryMembership:
        """Add a member."""
        with self.lock:
            member = MemoryMembership(self)
            self._members.append(member)
            self._share_out()
            return member

    def leave(self, member: MemoryMembership) -> None:
        """Remove a member; its partitions are free at once."""
        with self.lock:
            if member not in self._members:
                return
            self._members.remove(member)
            member.lose({n for n, owner in self._owners.items() if owner is member})
            self._owners = {n: None if owner is member else owner for n, owner in self._owners.items()}
            self._share_out()

    def expire(self) -> None:
        """Let every member's session end; they join again at once, as after a long silence."""
        with self.lock:
            members = list(self._members)
            for member in members:
                self.leave(member)
            self._members = members
            self._share_out()

    def release(self, member: MemoryMembership, number: int) -> None:
        """Let another member have a partition that was revoked."""
        with self.lock:
            if self._owners[number] is member:
                self._owners[number] = None
            self._share_out()

    def _share_out(self) -> None:
        """Give what is free to whoever has least; ask whoever has too much to give up, one by one."""
        if not self._members:
            return
        for number, owner in self._owners.items():
            if owner is None:
                member = min(self._members, key=self._load)
                self._owners[number] = member
                member.gain(number)
        most, least = max(self._members, key=self._load), min(self._members, key=self._load)
        if self._load(most) - self._load(least) > 1 and not any(member.is_asked for member in self._members):
            most.revoke(max(n for n, owner in self._owners.items() if owner is most))

    def _load(self, member: MemoryMembership) -> int:
        return sum(owner is member for owner in self._owners.values())


class MemoryMembership:
    """See :class:`streaming.transport.Membership`."""

    def __init__(self, group: MemoryGroup) -> None:
        self._group = group
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()
        self._asked: set[int] = set()
        self._lost: set[int] = set()

    @property
    def group_name(self) -> str:
        """Name of the group."""
        return self._group.name

    @property
    def is_asked(self) -> bool:
        """Whether it was asked to give up a partition and has not yet."""
        return bool(self._asked)

    def poll(self) -> Rebalance:
        """Return what changed."""
        with self._group.lock:
            change = Rebalance(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
            self._assigned, self._revoked, self._lost = set(), set(), set()
            return change

    def release(self, partitions: Iterable[int]) -> None:
        """Let others have them."""
        for number in partitions:
            self._asked.discard(number)
            self._group.release(self, number)

    def close(self) -> None:
        """Leave; the others get everything at once."""
        self._group.leave(self)

    def gain(self, number: int) -> None:
        """Be given a partition."""
        self._assigned.add(number)

    def revoke(self, number: int) -> None:
        """Be asked to give a partition up."""
        self._assigned.discard(number)
        self._revoked.add(number)
        self._asked.add(number)

    def lose(self, numbers: set[int]) -> None:
        """Be without these from now on."""
        self._assigned -= numbers
        self._revoked -= numbers
        self._asked -= numbers
        self._lost |= numbers

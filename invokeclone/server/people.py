"""Who is behind each socket in multi-user mode, and whether they still may be there; it knows no event and no room."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.sql.database import Database
from invokeclone.users import signin
from invokeclone.users.signin import UNREADABLE, SignIn, Standing

STRIKES = 3
"""Checks in a row that could not be made, after which nobody passes for an admin."""

_log = log.get("server.sockets")


@dataclass(slots=True)
class _Person:
    user_id: str
    token_epoch: int
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a socket: whether it may stay, and whether it hears what admins hear."""

    stays: bool
    is_admin: bool


class People:
    """The accounts behind the sockets."""

    def __init__(self, database: Database) -> None:
        """Start with none; accounts are read from `database`."""
        self._database = database
        self._people: dict[str, _Person] = {}

    async def admit(self, sid: str, environ: dict[str, Any], auth: object) -> SignIn | None:
        """Return who opens a socket, by the token that is sent along or in the header; None: it may not be opened."""
        sent = auth.get("token") if isinstance(auth, dict) else None
        token = sent if isinstance(sent, str) and sent else signin.bearer(environ.get("HTTP_AUTHORIZATION"))
        try:
            found = await signin.verify(self._database, token) if token else None
        except UNREADABLE as error:
            _log.warning("cannot read who opens a socket: %s", error)
            return None
        if found:
            self._people[sid] = _Person(found.user_id, found.token_epoch)
        return found

    def forget(self, sid: str) -> None:
        """Take a socket off the list that was closed."""
        self._people.pop(sid, None)

    async def check(self, user_id: str | None = None) -> dict[str, Verdict | None]:
        """Return the verdict on every socket, or on those of one user; None: nothing changes for now."""
        chosen = {sid: person for sid, person in self._people.items() if user_id in (None, person.user_id)}
        standings = await self._standings({person.user_id for person in chosen.values()})
        return {sid: _judge(person, standings) for sid, person in chosen.items()}

    async def _standings(self, user_ids: Iterable[str]) -> dict[str, Standing | None]:
        """Return what can be read of the accounts; those that can't be read are not in it."""
        found = {}
        for user_id in user_ids:
            try:
                found[user_id] = await signin.standing(self._database, user_id)
            except UNREADABLE as error:
                _log.warning("cannot read whether user %s may still listen: %s", user_id, error)
        return found


def _judge(person: _Person, standings: dict[str, Standing | None]) -> Verdict | None:
    if person.user_id not in standings:
        person.strikes += 1
        return Verdict(stays=True, is_admin=False) if person.strikes >= STRIKES else None
    person.strikes = 0
    standing = standings[person.user_id]
    stays = standing is not None and standing.is_active and standing.token_epoch == person.token_epoch
    return Verdict(stays, is_admin=bool(stays and standing and standing.is_admin))

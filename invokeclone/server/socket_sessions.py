"""Who is behind each socket in multi-user mode, and whether they still may be there; it knows no event and no room."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.sql.database import Database
from invokeclone.users import signin
from invokeclone.users.signin import UNREADABLE, AccountStatus, SignIn

FAILED_CHECKS_LIMIT = 3
"""Checks in a row that could not be made, after which nobody passes for an admin."""

_log = log.get("server.sockets")


@dataclass(slots=True)
class _Session:
    user_id: str
    token_epoch: int
    failed_checks: int = 0


@dataclass(frozen=True, slots=True)
class AccessDecision:
    """What is to become of a socket: whether it may stay, and whether it hears what admins hear."""

    may_stay: bool
    is_admin: bool


class SocketSessions:
    """The accounts behind the sockets."""

    def __init__(self, database: Database) -> None:
        """Start with none; accounts are read from `database`."""
        self._database = database
        self._sessions: dict[str, _Session] = {}

    async def admit(self, sid: str, environ: dict[str, Any], auth: object) -> SignIn | None:
        """Return who opens a socket, by the token that is sent along or in the header; None: it may not be opened."""
        sent = auth.get("token") if isinstance(auth, dict) else None
        token = sent if isinstance(sent, str) and sent else signin.bearer(environ.get("HTTP_AUTHORIZATION"))
        try:
            sign_in = await signin.verify(self._database, token) if token else None
        except UNREADABLE as error:
            _log.warning("cannot read who opens a socket: %s", error)
            return None
        if sign_in:
            self._sessions[sid] = _Session(sign_in.user_id, sign_in.token_epoch)
        return sign_in

    def forget(self, sid: str) -> None:
        """Take a socket off the list that was closed."""
        self._sessions.pop(sid, None)

    async def check(self, user_id: str | None = None) -> dict[str, AccessDecision | None]:
        """Return the verdict on every socket, or on those of one user; None: nothing changes for now."""
        sessions = {sid: session for sid, session in self._sessions.items() if user_id in (None, session.user_id)}
        statuses = await self._account_statuses({session.user_id for session in sessions.values()})
        return {sid: _decide(session, statuses) for sid, session in sessions.items()}

    async def _account_statuses(self, user_ids: Iterable[str]) -> dict[str, AccountStatus | None]:
        """Return what can be read of the accounts; those that can't be read are not in it."""
        statuses = {}
        for user_id in user_ids:
            try:
                statuses[user_id] = await signin.account_status(self._database, user_id)
            except UNREADABLE as error:
                _log.warning("cannot read whether user %s may still listen: %s", user_id, error)
        return statuses


def _decide(session: _Session, statuses: dict[str, AccountStatus | None]) -> AccessDecision | None:
    if session.user_id not in statuses:
        session.failed_checks += 1
        return AccessDecision(may_stay=True, is_admin=False) if session.failed_checks >= FAILED_CHECKS_LIMIT else None
    session.failed_checks = 0
    status = statuses[session.user_id]
    may_stay = status is not None and status.is_active and status.token_epoch == session.token_epoch
    return AccessDecision(may_stay, is_admin=bool(may_stay and status and status.is_admin))

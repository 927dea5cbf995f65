"""Accounts of the connected sockets in multi-user mode, and checks whether they may stay connected."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.sql.database import Database
from invokeclone.users import signin
from invokeclone.users.signin import UNREADABLE, AccountStatus, SignIn

FAILED_CHECKS_LIMIT = 3
"""Consecutive failed checks after which a socket loses its admin rights."""

_log = log.get("server.sockets")


@dataclass(slots=True)
class _Session:
    user_id: str
    token_epoch: int
    failed_checks: int = 0


@dataclass(frozen=True, slots=True)
class AccessDecision:
    """Whether a socket may stay connected, and whether it gets admin events."""

    may_stay: bool
    is_admin: bool


class SocketSessions:
    """The accounts behind the sockets."""

    def __init__(self, database: Database) -> None:
        """Start without sessions; accounts are read from `database`."""
        self._database = database
        self._sessions: dict[str, _Session] = {}

    async def admit(self, sid: str, environ: dict[str, Any], auth: object) -> SignIn | None:
        """Return the user who opens a socket, by the token in `auth` or the Authorization header; None if refused."""
        sent = auth.get("token") if isinstance(auth, dict) else None
        token = sent if isinstance(sent, str) and sent else signin.bearer(environ.get("HTTP_AUTHORIZATION"))
        try:
            sign_in = await signin.verify(self._database, token) if token else None
        except UNREADABLE as error:
            _log.warning("cannot read the account of a new socket: %s", error)
            return None
        if sign_in:
            self._sessions[sid] = _Session(sign_in.user_id, sign_in.token_epoch)
        return sign_in

    def forget(self, sid: str) -> None:
        """Remove a closed socket."""
        self._sessions.pop(sid, None)

    async def check(self, user_id: str | None = None) -> dict[str, AccessDecision | None]:
        """Return the decision on every socket, or on those of one user; None leaves a socket as it is."""
        sessions = {sid: session for sid, session in self._sessions.items() if user_id in (None, session.user_id)}
        statuses = await self._account_statuses({session.user_id for session in sessions.values()})
        return {sid: _decide(session, statuses) for sid, session in sessions.items()}

    async def _account_statuses(self, user_ids: Iterable[str]) -> dict[str, AccountStatus | None]:
        """Return account statuses by user id; accounts that cannot be read are missing."""
        statuses = {}
        for user_id in user_ids:
            try:
                statuses[user_id] = await signin.account_status(self._database, user_id)
            except UNREADABLE as error:
                _log.warning("cannot check whether user %s may stay connected: %s", user_id, error)
        return statuses


def _decide(session: _Session, statuses: dict[str, AccountStatus | None]) -> AccessDecision | None:
    if session.user_id not in statuses:
        session.failed_checks += 1
        return AccessDecision(may_stay=True, is_admin=False) if session.failed_checks >= FAILED_CHECKS_LIMIT else None
    session.failed_checks = 0
    status = statuses[session.user_id]
    may_stay = status is not None and status.is_active and status.token_epoch == session.token_epoch
    return AccessDecision(may_stay, is_admin=bool(may_stay and status and status.is_admin))

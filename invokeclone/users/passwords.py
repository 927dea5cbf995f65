"""Passwords: strength rules and hashing (Argon2id).

Hashing deliberately takes tens of milliseconds of CPU time and megabytes of memory, so it runs in two dedicated
threads.
"""

import asyncio
import secrets
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

from invokeclone.kit.errors import BadRequest

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LONGEST = 1_024
STRONG_LENGTH = 8
GENERATED_LENGTH = 16
ROUNDS = 2
MEMORY_KIB = 19_456
"""OWASP's minimum; hashes with other parameters are replaced when their user signs in."""

_Result = TypeVar("_Result")
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")


class WeakPassword(BadRequest):
    """The password does not satisfy the rules."""


def check_strength(password: str, *, strict: bool) -> None:
    """Raise WeakPassword for an empty or overlong password; with `strict` also for a short or simple one."""
    if not password:
        raise WeakPassword("The password must not be empty")
    if len(password) > LONGEST:
        raise WeakPassword(f"The password must not be longer than {LONGEST} characters")
    if not strict:
        return
    if len(password) < STRONG_LENGTH:
        raise WeakPassword(f"The password must have at least {STRONG_LENGTH} characters")
    kinds: tuple[Callable[[str], bool], ...] = (str.isupper, str.islower, str.isdigit)
    if not all(any(map(kind, password)) for kind in kinds):
        raise WeakPassword("The password must have an upper case letter, a lower case letter and a digit")


def generate() -> str:
    """Return a random password that satisfies the strict rule."""
    letters = string.ascii_letters + string.digits + string.punctuation
    while True:
        password = "".join(secrets.choice(letters) for _ in range(GENERATED_LENGTH))
        if any(map(str.isupper, password)) and any(map(str.islower, password)) and any(map(str.isdigit, password)):
            return password


async def hash_password(password: str) -> str:
    """Return the hash of `password` to store."""
    return await _in_thread(partial(_hasher().hash, password))


async def matches(password: str, password_hash: str | None) -> bool:
    """Return whether `password_hash` is a hash of `password`.

    Without a hash it takes as long, so that timing reveals nothing.
    """
    return await _in_thread(partial(_matches, password, password_hash))


def is_outdated(password_hash: str) -> bool:
    """Return whether `password_hash` was made with parameters other than the current ones."""
    return _hasher().check_needs_rehash(password_hash)


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


@lru_cache(maxsize=1)
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # imported on first sign-in to keep startup fast

    return PasswordHasher(time_cost=ROUNDS, memory_cost=MEMORY_KIB, parallelism=1)


@lru_cache(maxsize=1)
def _dummy_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe())


def _matches(password: str, password_hash: str | None) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHash

    dummy_hash = _dummy_hash()  # created on the first attempt, whether or not the account exists
    try:
        is_match = _hasher().verify(password_hash or dummy_hash, password[: LONGEST + 1])
    except (Argon2Error, InvalidHash):
        return False
    return is_match and bool(password_hash) and len(password) <= LONGEST

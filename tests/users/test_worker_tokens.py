"""Tokens of workers on other machines: created, verified, expired, revoked."""

import re

import pytest

from invokeclone.kit.resources import Resources
from invokeclone.users import keys, worker_tokens
from invokeclone.users.worker_tokens import BadTokenName, InvalidToken, TokenNotFound


async def test_only_the_hash_is_stored(resources: Resources) -> None:
    text = await worker_tokens.create(resources.database, " box ")
    assert re.fullmatch(r"icw_[A-Za-z0-9_-]{43}", text)
    assert not keys.is_key(text)
    (stored,) = await worker_tokens.list_all(resources.database)
    assert (stored.name, stored.prefix, stored.last_used_at) == ("box", text[:10], None)
    assert stored.expires_at
    assert stored.expires_at > stored.created_at
    rows = await resources.database.fetch("SELECT * FROM worker_tokens", {})
    assert text not in str(rows)
    token = await worker_tokens.verify(resources.database, text)
    assert token == (stored.id, "box")
    await worker_tokens.note_use(resources.database, token)
    assert (await worker_tokens.list_all(resources.database))[0].last_used_at


@pytest.mark.parametrize("text", [None, "", "icw_", "icw_" + "a" * 43, "ick_" + "a" * 43, "é" * 47])
async def test_other_texts_are_refused(resources: Resources, text: str | None) -> None:
    await worker_tokens.create(resources.database, "box")
    with pytest.raises(InvalidToken, match="worker token create"):
        await worker_tokens.verify(resources.database, text)


async def test_an_expired_token_is_refused_and_one_without_end_is_not(resources: Resources) -> None:
    expired = await worker_tokens.create(resources.database, "old", days=-1)
    unlimited = await worker_tokens.create(resources.database, "new", days=None)
    with pytest.raises(InvalidToken):
        await worker_tokens.verify(resources.database, expired)
    token = await worker_tokens.verify(resources.database, unlimited)
    assert await worker_tokens.is_valid(resources.database, token)


async def test_a_revoked_token_is_refused(resources: Resources) -> None:
    text = await worker_tokens.create(resources.database, "box")
    token = await worker_tokens.verify(resources.database, text)
    with pytest.raises(TokenNotFound):
        await worker_tokens.revoke(resources.database, "icw_zzzzzz")
    await worker_tokens.revoke(resources.database, text[:10])
    assert not await worker_tokens.is_valid(resources.database, token)
    with pytest.raises(InvalidToken):
        await worker_tokens.verify(resources.database, text)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101])
async def test_a_bad_name_is_refused(resources: Resources, name: str) -> None:
    with pytest.raises(BadTokenName):
        await worker_tokens.create(resources.database, name)

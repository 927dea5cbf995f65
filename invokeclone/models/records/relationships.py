"""SQL for relationships of models: undirected pairs, stored once with the smaller key first."""

from collections.abc import Iterable

from pydantic import BaseModel
from sqlalchemy import delete as sql_delete
from sqlalchemy import or_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import BadRequest
from invokeclone.models.errors import UnknownModelException
from invokeclone.models.records import store
from invokeclone.tables import model_relationships

_first, _second = model_relationships.c.model_key_1, model_relationships.c.model_key_2
_KEYS_PER_QUERY = 400
"""Keys per query; SQLite limits the number of bound values."""


class SameModel(BadRequest):
    """A model cannot be related to itself."""


class ModelRelationshipCreateRequest(BaseModel):
    """The keys of two models."""

    model_key_1: str
    model_key_2: str

    def pair(self) -> tuple[str, str]:
        """Return both keys, the smaller one first. Raises SameModel."""
        if self.model_key_1 == self.model_key_2:
            raise SameModel("a model cannot be related to itself")
        first, second = sorted((self.model_key_1, self.model_key_2))
        return first, second


class ModelRelationshipBatchRequest(BaseModel):
    """The keys of any number of models."""

    model_keys: list[str]


async def add(connection: AsyncConnection, pair: tuple[str, str]) -> None:
    """Relate two models unless they are related already. Raises UnknownModelException."""
    for key in pair:
        if not await store.exists(connection, key):
            raise UnknownModelException(f"no model with key {key}")
    row = insert(model_relationships).values(model_key_1=pair[0], model_key_2=pair[1])
    await connection.execute(row.on_conflict_do_nothing())


async def remove(connection: AsyncConnection, pair: tuple[str, str]) -> None:
    """Remove the relationship of two models, if there is one."""
    await connection.execute(sql_delete(model_relationships).where(_first == pair[0], _second == pair[1]))


async def list_related(connection: AsyncConnection, keys: Iterable[str]) -> list[str]:
    """Return the keys of the models related to any of `keys`, sorted, without duplicates; unknown keys have none."""
    unique_keys = list(dict.fromkeys(keys))
    related_keys: set[str] = set()
    for start in range(0, len(unique_keys), _KEYS_PER_QUERY):
        key_batch = unique_keys[start : start + _KEYS_PER_QUERY]
        related_keys.update(await connection.scalars(select(_second).where(_first.in_(key_batch))))
        related_keys.update(await connection.scalars(select(_first).where(_second.in_(key_batch))))
    return sorted(related_keys)


async def transfer(connection: AsyncConnection, old: str, new: str) -> None:
    """Transfer the relationships of the model `old` to the model `new`."""
    related_keys = await list_related(connection, [old])
    await connection.execute(sql_delete(model_relationships).where(or_(_first == old, _second == old)))
    for other in related_keys:
        await add(connection, ModelRelationshipCreateRequest(model_key_1=other, model_key_2=new).pair())

"""The invocation cache: keys, order of leaving, counting, switching off, forgetting what names something gone."""

import orjson
import pytest

from invokeclone.graph.invocations.invocation import BaseInvocationOutput
from invokeclone.worker.cache import InvocationCache, key_of


class Out(BaseInvocationOutput):
    """An output with one text."""

    text: str
    type: str = "out"


def keep(cache: InvocationCache, key: bytes, text: str = "") -> Out:
    """Put an output into the cache."""
    output = Out(text=text)
    cache.save(key, output, output.model_dump_json().encode())
    return output


def test_nodes_differing_only_in_id_share_a_key() -> None:
    first = orjson.dumps({"id": "a-b", "is_intermediate": True, "value": "a-b"})
    second = orjson.dumps({"id": "c-d", "is_intermediate": True, "value": "a-b"})
    other = orjson.dumps({"id": "c-d", "is_intermediate": False, "value": "a-b"})
    assert key_of("a-b", first) == key_of("c-d", second)
    assert key_of("c-d", second) != key_of("c-d", other)


def test_users_share_no_outputs() -> None:
    """Whoever ran the node first owns the pictures that its output names; others may not see them."""
    node = orjson.dumps({"id": "a", "seed": 1})
    assert key_of("a", node, "ann") == key_of("a", node, "ann")
    assert key_of("a", node, "ann") != key_of("a", node, "bob")


def test_a_hit_returns_the_output_and_both_kinds_are_counted() -> None:
    cache = InvocationCache(2)
    assert cache.get(b"k") is None
    output = keep(cache, b"k")
    assert cache.get(b"k") is output
    assert cache.status() == {"size": 1, "hits": 1, "misses": 1, "enabled": True, "max_size": 2}


def test_least_recently_used_entry_is_evicted_first() -> None:
    cache = InvocationCache(2)
    keep(cache, b"a")
    keep(cache, b"b")
    cache.get(b"a")
    keep(cache, b"c")
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.get(b"c") is not None


def test_disabled_cache_neither_reads_writes_nor_counts() -> None:
    cache = InvocationCache(2)
    keep(cache, b"a")
    cache.disable()
    assert cache.get(b"a") is None
    keep(cache, b"b")
    assert cache.status() == {"size": 1, "hits": 0, "misses": 0, "enabled": False, "max_size": 2}
    cache.enable()
    assert cache.get(b"a") is not None


def test_size_zero_can_not_be_enabled() -> None:
    cache = InvocationCache(0)
    cache.enable()
    keep(cache, b"a")
    assert cache.status() == {"size": 0, "hits": 0, "misses": 0, "enabled": False, "max_size": 0}


def test_clear_zeroes_the_counts() -> None:
    cache = InvocationCache(2)
    keep(cache, b"a")
    cache.get(b"a")
    cache.clear()
    assert cache.status() == {"size": 0, "hits": 0, "misses": 0, "enabled": True, "max_size": 2}


@pytest.mark.parametrize("gone", ["0a1b2c3d.png", "Tensor_0a1b2c3d"])
def test_outputs_naming_deleted_objects_are_removed(gone: str) -> None:
    cache = InvocationCache(9)
    keep(cache, b"a", gone)
    keep(cache, b"b", gone)
    keep(cache, b"c", "another.png")
    assert cache.mentions(gone)
    cache.forget([gone, "never heard of"])
    assert not cache.mentions(gone)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is None
    assert cache.get(b"c") is not None


def test_name_is_referenced_until_its_last_output_is_evicted() -> None:
    cache = InvocationCache(2)
    keep(cache, b"a", "Tensor_123")
    keep(cache, b"b", "Tensor_123")
    keep(cache, b"c", "x")
    assert cache.mentions("Tensor_123")
    keep(cache, b"d", "x")
    assert not cache.mentions("Tensor_123")

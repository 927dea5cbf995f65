"""The garbage collector is off in pauses, and on again after the last one; too long a series of them does not keep it off."""

import gc
from collections.abc import Iterator

import pytest

from invokeclone.kit.process import garbage_collection
from invokeclone.kit.process.garbage_collection import pause_gc


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_overlapping_pauses_end_with_the_last() -> None:
    with pause_gc():
        with pause_gc():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_a_pause() -> None:
    with pytest.raises(ValueError, match="x"), pause_gc():
        raise ValueError("x")
    assert gc.isenabled()


def test_a_disabled_collector_stays_disabled() -> None:
    gc.disable()
    with pause_gc():
        pass
    assert not gc.isenabled()


def test_an_overlong_series_of_pauses_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "LONGEST_S", -1.0)
    with pause_gc():
        assert not gc.isenabled()
        with pause_gc():
            assert gc.isenabled()

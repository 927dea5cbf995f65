"""Values of an event loop."""

import asyncio

from invokeclone.kit.process.loop_local import LoopLocal


def test_each_event_loop_has_its_own_value_made_once() -> None:
    made: list[set[str]] = []

    def make() -> set[str]:
        made.append(set())
        return made[-1]

    local = LoopLocal("names", make)

    async def use(name: str) -> set[str]:
        local.get().add(name)
        return local.get()

    assert asyncio.run(use("a")) == {"a"}
    assert asyncio.run(use("b")) == {"b"}
    assert made == [{"a"}, {"b"}]

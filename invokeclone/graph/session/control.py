"""The three nodes that shape a run: iterate, collect, if. What they do to the order of things is in `expansion`."""

from typing import Any

from pydantic import PrivateAttr

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import InputField, OutputField
from invokeclone.graph.vocabulary.hints import Input, UIType

ITERATE = "iterate"
COLLECT = "collect"
IF = "if"


@invocation_output("iterate_output")
class IterateInvocationOutput(BaseInvocationOutput):
    """One item of a collection."""

    item: Any = OutputField(
        description="The item being iterated over",
        title="Collection Item",
        ui_type=UIType._CollectionItem,  # noqa: SLF001 - third-party nodes know it by this name
    )
    index: int = OutputField(description="The item's place in the collection, from 0")
    total: int = OutputField(description="How many items the collection has")


@invocation("iterate", version="1.1.0", use_cache=False)
class IterateInvocation(BaseInvocation):
    """Run what follows once for each item of a collection."""

    collection: list[Any] = InputField(
        default=[],
        description="The items to iterate over",
        ui_type=UIType._Collection,  # noqa: SLF001 - see above
    )
    index: int = InputField(default=0, description="The item's place in the collection, from 0", ui_hidden=True)

    _items: list[Any] | None = PrivateAttr(default=None)
    """The collection as a session gives it: by reference, and out of sight of events and stored sessions."""

    def receive(self, items: list[Any]) -> None:
        """Take the whole collection, without a copy."""
        self._items = items

    def invoke(self, context: InvocationContext) -> IterateInvocationOutput:
        """Give out the item at `index`."""
        items = self.collection if self._items is None else self._items
        self._items = None
        return IterateInvocationOutput(item=items[self.index], index=self.index, total=len(items))


@invocation_output("collect_output")
class CollectInvocationOutput(BaseInvocationOutput):
    """What was collected."""

    collection: list[Any] = OutputField(
        description="The collected items",
        title="Collection",
        ui_type=UIType._Collection,  # noqa: SLF001 - see above
    )


@invocation("collect", version="1.1.0", use_cache=False)
class CollectInvocation(BaseInvocation):
    """Collect single values and collections into one collection."""

    item: Any | None = InputField(
        default=None,
        description="An item to collect; any number of edges may lead here",
        title="Collection Item",
        ui_type=UIType._CollectionItem,  # noqa: SLF001 - see above
        input=Input.Connection,
    )
    collection: list[Any] = InputField(
        default=[],
        description="Items to collect, in front of the single ones; any number of edges may lead here",
        ui_type=UIType._Collection,  # noqa: SLF001 - see above
        input=Input.Connection,
    )

    _items: list[Any] | None = PrivateAttr(default=None)

    def receive(self, items: list[Any]) -> None:
        """Take what the edges brought, in order."""
        self._items = items

    def invoke(self, context: InvocationContext) -> CollectInvocationOutput:
        """Give out what was collected."""
        items = list(self.collection) if self._items is None else self._items
        self._items = None
        return CollectInvocationOutput(collection=items)


@invocation_output("if_output")
class IfInvocationOutput(BaseInvocationOutput):
    """The chosen value."""

    value: Any | None = OutputField(
        default=None, description="The value of the chosen input", title="Output", ui_type=UIType.Any
    )


@invocation("if", title="If", tags=["logic", "conditional"], category="math", version="1.0.0")
class IfInvocation(BaseInvocation):
    """Choose one of two inputs; what only the other one needs is not run."""

    condition: bool = InputField(default=False, description="Which input to choose")
    true_input: Any | None = InputField(
        default=None, description="The value when the condition is true", ui_type=UIType.Any
    )
    false_input: Any | None = InputField(
        default=None, description="The value when the condition is false", ui_type=UIType.Any
    )

    def invoke(self, context: InvocationContext) -> IfInvocationOutput:
        """Give out the chosen value."""
        return IfInvocationOutput(value=self.true_input if self.condition else self.false_input)

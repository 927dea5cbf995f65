"""The control flow nodes iterate, collect and if; `expansion` implements their effect on a run."""

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
        ui_type=UIType._CollectionItem,  # noqa: SLF001 - third-party nodes use this name
    )
    index: int = OutputField(description="Index of the item in the collection, from 0")
    total: int = OutputField(description="Number of items in the collection")


@invocation("iterate", version="1.1.0", use_cache=False)
class IterateInvocation(BaseInvocation):
    """Run the following nodes once for each item of a collection."""

    collection: list[Any] = InputField(
        default=[],
        description="The items to iterate over",
        ui_type=UIType._Collection,  # noqa: SLF001 - see above
    )
    index: int = InputField(default=0, description="Index of the item in the collection, from 0", ui_hidden=True)

    _items: list[Any] | None = PrivateAttr(default=None)
    """The collection, set by the session without a copy, and absent from events and stored sessions."""

    def receive(self, items: list[Any]) -> None:
        """Set the whole collection, without a copy."""
        self._items = items

    def invoke(self, context: InvocationContext) -> IterateInvocationOutput:
        """Return the item at `index`."""
        items = self.collection if self._items is None else self._items
        self._items = None
        return IterateInvocationOutput(item=items[self.index], index=self.index, total=len(items))


@invocation_output("collect_output")
class CollectInvocationOutput(BaseInvocationOutput):
    """The collected items."""

    collection: list[Any] = OutputField(
        description="The collected items",
        title="Collection",
        ui_type=UIType._Collection,  # noqa: SLF001 - see above
    )


@invocation("collect", version="1.1.0", use_cache=False)
class CollectInvocation(BaseInvocation):
    """Collect single items and collections into one collection."""

    item: Any | None = InputField(
        default=None,
        description="Item to collect; accepts any number of connections",
        title="Collection Item",
        ui_type=UIType._CollectionItem,  # noqa: SLF001 - see above
        input=Input.Connection,
    )
    collection: list[Any] = InputField(
        default=[],
        description="Items to collect, placed before single items; accepts any number of connections",
        ui_type=UIType._Collection,  # noqa: SLF001 - see above
        input=Input.Connection,
    )

    _items: list[Any] | None = PrivateAttr(default=None)

    def receive(self, items: list[Any]) -> None:
        """Set the items from the node's edges, in order."""
        self._items = items

    def invoke(self, context: InvocationContext) -> CollectInvocationOutput:
        """Return the collected items."""
        items = list(self.collection) if self._items is None else self._items
        self._items = None
        return CollectInvocationOutput(collection=items)


@invocation_output("if_output")
class IfInvocationOutput(BaseInvocationOutput):
    """The value of the selected input."""

    value: Any | None = OutputField(
        default=None, description="The value of the selected input", title="Output", ui_type=UIType.Any
    )


@invocation("if", title="If", tags=["logic", "conditional"], category="math", version="1.0.0")
class IfInvocation(BaseInvocation):
    """Select one of two inputs; nodes that only the other input needs are not run."""

    condition: bool = InputField(default=False, description="Which input to select")
    true_input: Any | None = InputField(
        default=None, description="The value when the condition is true", ui_type=UIType.Any
    )
    false_input: Any | None = InputField(
        default=None, description="The value when the condition is false", ui_type=UIType.Any
    )

    def invoke(self, context: InvocationContext) -> IfInvocationOutput:
        """Return the value of the selected input."""
        return IfInvocationOutput(value=self.true_input if self.condition else self.false_input)

"""Nodes that generate lists of numbers: ranges and random numbers."""

from pydantic import ValidationInfo, field_validator

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import FloatCollectionOutput, IntegerCollectionOutput
from invokeclone.graph.vocabulary.fields import InputField
from invokeclone.kit.errors import Unprocessable


def _check(count: int, context: InvocationContext) -> None:
    """Raise Unprocessable for more numbers than a list may have, before they are generated."""
    limit = context.config.get().limits.collection_items
    if count > limit:
        raise Unprocessable(f"{count} numbers exceed the limit of {limit} (setting limits.collection_items)")


@invocation(
    "range",
    title="Integer Range",
    tags=["collection", "integer", "range"],
    category="batch",
    version="1.0.0",
)
class RangeInvocation(BaseInvocation):
    """Generate the integers from start up to, but not including, stop."""

    start: int = InputField(default=0, description="First number")
    stop: int = InputField(default=10, description="End of the range, exclusive")
    step: int = InputField(default=1, description="Difference between consecutive numbers")

    @field_validator("stop")
    @classmethod
    def _after_start(cls, stop: int, info: ValidationInfo) -> int:
        if "start" in info.data and stop <= info.data["start"]:
            message = "stop must be greater than start"
            raise ValueError(message)
        return stop

    def invoke(self, context: InvocationContext) -> IntegerCollectionOutput:
        """Return the numbers. Raises Unprocessable for too many."""
        numbers = range(self.start, self.stop, self.step)
        _check(max((self.stop - self.start) // self.step, 0), context)
        return IntegerCollectionOutput(collection=list(numbers))


@invocation(
    "range_of_size",
    title="Integer Range of Size",
    tags=["collection", "integer", "size", "range"],
    category="batch",
    version="1.0.0",
)
class RangeOfSizeInvocation(BaseInvocation):
    """Generate a number of integers from start."""

    start: int = InputField(default=0, description="First number")
    size: int = InputField(default=1, gt=0, description="Number of integers")
    step: int = InputField(default=1, description="Difference between consecutive numbers")

    def invoke(self, context: InvocationContext) -> IntegerCollectionOutput:
        """Return the numbers. Raises Unprocessable for too many."""
        _check(self.size, context)
        return IntegerCollectionOutput(collection=[self.start + self.step * index for index in range(self.size)])


@invocation(
    "random_range",
    title="Random Range",
    tags=["range", "integer", "random", "collection"],
    category="batch",
    version="1.0.1",
    use_cache=False,
)
class RandomRangeInvocation(BaseInvocation):
    """Generate random integers; the same seed gives the same numbers."""

    low: int = InputField(default=0, description="Lowest value, inclusive")
    high: int = InputField(default=2147483647, description="Highest value, exclusive")
    size: int = InputField(default=1, description="Number of integers")
    seed: int = InputField(default=0, ge=0, le=4294967295, description="Random seed")

    def invoke(self, context: InvocationContext) -> IntegerCollectionOutput:
        """Return the numbers. Raises Unprocessable for too many."""
        import numpy as np

        _check(self.size, context)
        numbers = np.random.default_rng(self.seed).integers(low=self.low, high=self.high, size=self.size)
        return IntegerCollectionOutput(collection=numbers.tolist())


@invocation(
    "float_range",
    title="Float Range",
    tags=["math", "range"],
    category="math",
    version="1.0.1",
)
class FloatLinearRangeInvocation(BaseInvocation):
    """Generate evenly spaced floats."""

    start: float = InputField(default=5, description="First number")
    stop: float = InputField(default=10, description="Last number")
    steps: int = InputField(default=30, description="Number of floats, including both ends")

    def invoke(self, context: InvocationContext) -> FloatCollectionOutput:
        """Return the numbers. Raises Unprocessable for too many."""
        import numpy as np

        _check(self.steps, context)
        return FloatCollectionOutput(collection=np.linspace(self.start, self.stop, self.steps).tolist())

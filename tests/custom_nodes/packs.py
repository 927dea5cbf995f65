"""Packs written by hand, as other authors write them."""

from pathlib import Path

INIT = "from .nodes import ShoutInvocation\n"
NODES = '''
from enum import Enum
from typing import Literal, Optional

from pydantic import BaseModel

from invokeai.app.invocations.primitives import ImageField
from invokeai.invocation_api import (
    BaseInvocation, BaseInvocationOutput, Input, InputField, InvocationContext, OutputField, StringOutput,
    UIComponent, WithMetadata, invocation, invocation_output,
)

print("a pack that prints when it is imported")


class Mood(str, Enum):
    calm = "calm"
    loud = "loud"


class Recipe(BaseModel):
    """Something of its own."""

    name: str
    parts: list[int] = []


@invocation_output("PACK_shout_output")
class ShoutOutput(BaseInvocationOutput):
    """What is shouted."""

    text: str = OutputField(description="The text")
    recipe: Recipe = OutputField(description="The recipe")
    moods: list[Mood] = OutputField(description="The moods")


@invocation("PACK_shout", title="Shout", tags=["text", "shout"], category="conf", version="1.2.3", use_cache=False)
class ShoutInvocation(BaseInvocation, WithMetadata):
    """Makes a text loud."""

    text: str = InputField(default="", description="The text", ui_component=UIComponent.Textarea)
    times: int = InputField(default=1, ge=1, le=9, description="How often")
    mood: Mood = InputField(default=Mood.loud, description="The mood")
    mark: Literal["!", "?"] = InputField(default="!", description="The mark")
    image: Optional[ImageField] = InputField(default=None, description="An image")
    recipe: Recipe = InputField(description="A recipe", input=Input.Connection)
    numbers: list[float] = InputField(default=[1.5], description="Numbers")

    def invoke(self, context: InvocationContext) -> ShoutOutput:
        return ShoutOutput(text=self.text.upper() + self.mark * self.times, recipe=self.recipe, moods=[self.mood])


@invocation("PACK_cook", title="Cook", version="1.0.0")
class CookInvocation(BaseInvocation):
    """Makes a recipe."""

    name: str = InputField(default="soup", description="Its name")

    def invoke(self, context: InvocationContext) -> ShoutOutput:
        return ShoutOutput(text=self.name, recipe=Recipe(name=self.name), moods=[])


@invocation("PACK_echo", title="Echo", version="1.0.0")
class EchoInvocation(BaseInvocation):
    """Says it again."""

    text: str = InputField(default="", description="The text")

    def invoke(self, context: InvocationContext) -> StringOutput:
        context.logger.info("echo")
        return StringOutput(value=self.text + " " + self.text)
'''
WORKFLOW = '{"name": "Shouting", "tags": "loud", "nodes": [], "edges": [], "meta": {"version": "3.0.0"}}'


def write_pack(folder: Path, name: str = "conf_pack", init: str = INIT, prefix: str = "conf") -> Path:
    """Write a pack with three nodes into `folder/name`."""
    pack = folder / name
    (pack / "workflows").mkdir(parents=True)
    (pack / "__init__.py").write_text(init)
    (pack / "nodes.py").write_text(NODES.replace("PACK", prefix))
    (pack / "workflows" / "shouting.json").write_text(WORKFLOW)
    (pack / "workflows" / "other.json").write_text('{"nodes": 3}')
    return pack

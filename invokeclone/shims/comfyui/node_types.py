"""ComfyUI node types: a name, typed inputs and outputs as ComfyUI publishes them, and a function that builds the graph.

A function's arguments are the node's inputs by their ComfyUI names. `values.py` defines the values of links.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import CannotBuild
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import InvalidGeneration, require_capability
from invokeclone.shims.comfyui.catalog import Catalog

LITERAL_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
MAX_IMAGES = 16
"""Maximum number of images of one link."""


@dataclass(frozen=True)
class NodeInput:
    """An input of a node. Types are ComfyUI's: `INT`, `FLOAT`, `STRING`, `BOOLEAN`, `COMBO`, or the type of a link."""

    type: str
    default: Any = None
    """The value of a null."""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    list_name: str | None = None
    """The list of the catalog with the choices."""
    open_list: bool = False
    """Whether names outside the list are accepted; the build function checks them."""
    optional: bool = False
    from_model: bool = False
    """Whether a null is passed on as None: the model's default, or another input's value."""
    multiline: bool = False
    tooltip: str | None = None

    @property
    def is_link(self) -> bool:
        """Whether the input can only be linked to another node."""
        return self.type not in LITERAL_TYPES

    def names(self, catalog: Catalog) -> list[str]:
        """Return the choices of a COMBO."""
        return catalog.names(self.list_name) if self.list_name else list(self.choices)

    def describe(self, catalog: Catalog) -> list[Any]:
        """Return the input as /object_info describes it."""
        all_options = {
            "default": self.default,
            "min": self.minimum,
            "max": self.maximum,
            "step": self.step,
            "multiline": self.multiline or None,
            "image_upload": True if self.list_name == "images" else None,
            "tooltip": self.tooltip,
        }
        options = {name: value for name, value in all_options.items() if value is not None}
        kind: Any = self.names(catalog) if self.type == "COMBO" else self.type
        return [kind, options] if options else [kind]


def integer(default: int, minimum: int, maximum: int, *, step: int = 1, from_model: bool = False) -> NodeInput:
    """Return an integer input."""
    return NodeInput("INT", default, minimum, maximum, step, from_model=from_model)


def number(
    default: float, minimum: float, maximum: float, *, step: float = 0.01, from_model: bool = False
) -> NodeInput:
    """Return a float input."""
    return NodeInput("FLOAT", default, minimum, maximum, step, from_model=from_model)


def choice(*choices: str, default: str | None = None, from_model: bool = False, open_list: bool = False) -> NodeInput:
    """Return an input with a list of choices, or with `open_list` any other text."""
    return NodeInput("COMBO", default or choices[0], choices=choices, from_model=from_model, open_list=open_list)


def list_choice(name: str, *, open_list: bool = False) -> NodeInput:
    """Return an input for a name in a list of the catalog; a null means the first one."""
    return NodeInput("COMBO", list_name=name, open_list=open_list)


def link(type_name: str, *, optional: bool = False) -> NodeInput:
    """Return an input that is linked to another node's output."""
    return NodeInput(type_name, optional=optional)


@dataclass
class BuildContext:
    """Context of a build function: the graph builder, scoped to the node, and the known models and images."""

    builder: GraphBuilder
    catalog: Catalog
    limits: Limits = DEFAULT_LIMITS
    warnings: list[str] = field(default_factory=list)
    """What the workflow asks for and the graph leaves out, for the client."""
    main_model: str | None = None
    """Name of the main model that uses the node's text encoders."""
    separate_models: Sequence[tuple[str, str]] = ()
    """The lists and names of the text encoders and VAEs that the workflow's nodes load."""
    unused: list[NodeOutput] = field(default_factory=list)
    """Outputs that are removed from the graph unless other nodes use them."""

    def warn(self, message: str) -> None:
        """Add a warning, once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def add(self, role: str, node_type: str, **inputs: Any) -> str:
        """Add a node to the graph and return its id."""
        return self.builder.node(role, node_type, **inputs)

    def output(self, role: str, node_type: str, output: str, **inputs: Any) -> NodeOutput:
        """Add a node to the graph and return one of its outputs."""
        return self.builder.output(role, node_type, output, **inputs)

    def find(self, list_name: str, name: str) -> ModelConfig:
        """Return the model of a list of the catalog that a name refers to; refuses an unknown one."""
        return self.catalog.model(list_name, name) or self.refuse(f"unknown model {name!r}")

    def require(self, config: ModelConfig, capability: str) -> None:
        """Raise CannotBuild unless the model has a capability."""
        try:
            require_capability(config, capability)
        except InvalidGeneration as error:
            raise CannotBuild(str(error)) from error

    def refuse(self, message: str) -> NoReturn:
        """Raise CannotBuild."""
        raise CannotBuild(message)


PREFIX = "comfy_"
"""Prefix of node ids in the graph; the position of the ComfyUI node and a role follow."""


@dataclass(frozen=True)
class NodeType:
    """A ComfyUI node that can be translated."""

    name: str
    title: str
    category: str
    description: str
    inputs: Mapping[str, NodeInput]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    build: Callable[..., Any]
    """Takes a BuildContext and the inputs by name; returns a tuple with a value for each output."""
    saves: bool = False
    """Whether it is an output node; workflows run to produce these."""

    def describe(self, catalog: Catalog) -> dict[str, Any]:
        """Return the node as /object_info describes it."""
        groups: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        for name, node_input in self.inputs.items():
            groups["optional" if node_input.optional else "required"][name] = node_input.describe(catalog)
        hidden = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"} if self.saves else {}
        input_groups = {"required": groups["required"]} | (
            {"optional": groups["optional"]} if groups["optional"] else {}
        )
        order = {group: list(inputs) for group, inputs in input_groups.items()}
        return {
            "input": input_groups | ({"hidden": hidden} if hidden else {}),
            "input_order": order | ({"hidden": list(hidden)} if hidden else {}),
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.output_names),
            "name": self.name,
            "display_name": self.title,
            "description": self.description,
            "python_module": "nodes",
            "category": self.category,
            "output_node": self.saves,
        }


@dataclass
class NodeRegistry:
    """The node types by name; modules of `nodes/` register theirs with `node`."""

    types: dict[str, NodeType] = field(default_factory=dict)

    def node(
        self,
        name: str,
        title: str,
        category: str,
        inputs: Mapping[str, NodeInput],
        *outputs: str | tuple[str, str],
        saves: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated build function; an output is its type, or a pair of type and name."""

        def register(build: Callable[..., Any]) -> Callable[..., Any]:
            pairs = [(output, output) if isinstance(output, str) else output for output in outputs]
            self.types[name] = NodeType(
                name,
                title,
                category,
                (build.__doc__ or "").strip(),
                inputs,
                tuple(kind for kind, _ in pairs),
                tuple(label for _, label in pairs),
                build,
                saves,
            )
            return build

        return register


registry = NodeRegistry()
node = registry.node

"""Strings, prompts, workflow values and nodes that never run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Unprocessable
from invokeclone.nodes.data import batch, prompts, strings, workflows
from tests.fakes_context import FakeConfig, FakeContext

NOTHING: Any = None


def test_join() -> None:
    joined = strings.StringJoinInvocation(string_left="a", string_right="b").invoke(NOTHING)
    assert joined.value == "ab"
    three = strings.StringJoinThreeInvocation(string_left="a", string_middle="b", string_right="c").invoke(NOTHING)
    assert three.value == "abc"


@pytest.mark.parametrize(
    ("text", "delimiter", "parts"), [("a,b,c", ",", ("a", "b,c")), ("abc", ",", ("abc", "")), ("", ",", ("", ""))]
)
def test_split(text: str, delimiter: str, parts: tuple[str, str]) -> None:
    output = strings.StringSplitInvocation(string=text, delimiter=delimiter).invoke(NOTHING)
    assert (output.string_1, output.string_2) == parts


def test_split_needs_a_delimiter() -> None:
    with pytest.raises(ValueError, match="empty separator"):
        strings.StringSplitInvocation(string="abc").invoke(NOTHING)


@pytest.mark.parametrize(
    ("prompt", "positive", "negative"),
    [
        ("a cat", "a cat", ""),
        ("a [dog] cat", "a  cat", " dog"),
        ("a [dog [big]] cat [x]", "a  cat ", " dog  big x"),
        (r"a \[dog\] cat", r"a \[dog\] cat", ""),
        ("a] b", "a b", ""),
    ],
)
def test_split_negative(prompt: str, positive: str, negative: str) -> None:
    output = strings.StringSplitNegInvocation(string=prompt).invoke(NOTHING)
    assert (output.positive_string, output.negative_string) == (positive, negative)


@pytest.mark.parametrize(
    ("text", "search", "replacement", "regex", "result"),
    [
        ("A cat, a CAT", "cat", "dog", False, "A dog, a dog"),
        ("a.b", ".", r"\1", False, r"a\1b"),
        ("abc", "", "x", False, "abc"),
        ("abc", "", "x", True, "abc"),
        ("a1b22", r"(\d+)", r"<\1>", True, "a<1>b<22>"),
        ("A a", "a", "x", True, "A x"),
    ],
)
def test_replace(text: str, search: str, replacement: str, regex: bool, result: str) -> None:
    node = strings.StringReplaceInvocation(
        string=text, search_string=search, replace_string=replacement, use_regex=regex
    )
    context: Any = FakeContext()
    assert node.invoke(context).value == result


def test_dynamic_prompts() -> None:
    node = prompts.DynamicPromptInvocation(prompt="a {red|green} {cat|dog}", max_prompts=10, combinatorial=True)
    context: Any = FakeContext()
    assert node.invoke(context).collection == ["a red cat", "a red dog", "a green cat", "a green dog"]
    node = prompts.DynamicPromptInvocation(prompt="a {red|green} cat")
    (prompt,) = node.invoke(context).collection
    assert prompt in ("a red cat", "a green cat")
    assert node.use_cache is False
    assert prompts.DynamicPromptInvocation(prompt="").invoke(context).collection == [""]


def test_generated_prompts_have_limits(tmp_path: Path) -> None:
    limits = Limits(dynamic_prompts=2, prompt_characters=20, batch_values=2)
    context: Any = FakeContext(config=FakeConfig(Settings(limits=limits)))
    pattern = "{a|b|c}"
    assert prompts.DynamicPromptInvocation(prompt=pattern, max_prompts=2, combinatorial=True).invoke(
        context
    ).collection == ["a", "b"]
    for node, setting in (
        (prompts.DynamicPromptInvocation(prompt=pattern, max_prompts=3), "dynamic_prompts"),
        (prompts.DynamicPromptInvocation(prompt=pattern * 3), "prompt_characters"),
    ):
        with pytest.raises(Unprocessable, match=setting):
            node.invoke(context)
    path = tmp_path / "prompts.txt"
    path.write_text("a\nb\nc\n", encoding="utf-8")
    context = FakeContext(
        config=SimpleNamespace(open_text=lambda _: path.open(encoding="utf-8"), get=lambda: Settings(limits=limits))
    )
    read: Any = prompts.PromptsFromFileInvocation
    assert read(file_path="x", max_prompts=2).invoke(context).collection == ["a", "b"]
    for arguments, setting in (({"max_prompts": 0}, "batch_values"), ({"pre_prompt": "x" * 21}, "prompt_characters")):
        with pytest.raises(Unprocessable, match=setting):
            read(file_path="x", **arguments).invoke(context)


def test_prompts_from_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n  two \n\nfour é\n", encoding="utf-8")

    names: list[str] = []

    def open_text(name: str) -> Any:
        names.append(name)
        return path.open(encoding="utf-8")

    def read(**arguments: Any) -> list[str]:
        context: Any = FakeContext(config=SimpleNamespace(open_text=open_text, get=Settings))
        return prompts.PromptsFromFileInvocation(file_path="some.txt", **arguments).invoke(context).collection

    assert read() == ["one"]
    assert read(max_prompts=0) == ["one", "two", "", "four é"]
    assert read(start_line=2, max_prompts=1, pre_prompt="<", post_prompt=">") == ["<two>"]
    assert read(start_line=9, max_prompts=0) == []
    assert set(names) == {"some.txt"}


@pytest.mark.parametrize("kind", ["image", "string", "integer", "float"])
@pytest.mark.parametrize("what", ["batch", "generator"])
def test_batch_nodes_never_run(kind: str, what: str) -> None:
    values = {"image": {"image_name": "x"}, "string": "x", "integer": 1, "float": 1.0}
    inputs: dict[str, Any] = {f"{kind}s": [values[kind]]} if what == "batch" else {"generator": {}}
    node = registry.get(f"{kind}_{what}").model_validate(inputs)
    with pytest.raises(batch.NotExecutableNodeError):
        node.invoke_checked(NOTHING)


def test_workflow_values() -> None:
    item = workflows.WorkflowReturnValueInvocation(key=" a ", value=[1]).invoke(NOTHING).value
    assert (item.key, item.value) == ("a", [1])
    other = workflows.WorkflowReturnValueField(key="b", value=2)
    returned = workflows.WorkflowReturnInvocation(values=[item, other]).invoke(NOTHING)
    assert returned.values == {"a": [1], "b": 2}
    assert workflows.WorkflowReturnInvocation(values=other).invoke(NOTHING).values == {"b": 2}
    assert workflows.WorkflowReturnGetInvocation(values=returned.values, key="b").invoke(NOTHING).value == 2
    for node in (
        workflows.WorkflowReturnValueInvocation(key=" "),
        workflows.WorkflowReturnInvocation(values=[item, item]),
        workflows.WorkflowReturnGetInvocation(values={}, key="b"),
    ):
        with pytest.raises(ValueError, match="key"):
            node.invoke(NOTHING)
    with pytest.raises(batch.NotExecutableNodeError):
        workflows.CallSavedWorkflowInvocation(workflow_id="x").invoke(NOTHING)

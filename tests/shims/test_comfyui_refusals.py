"""What ComfyUI's dialect refuses, in ComfyUI's words: workflows are checked before anything is enqueued."""

from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.config.limits import DEFAULT_LIMITS
from invokeclone.shims.comfyui.catalog import Catalog
from invokeclone.shims.comfyui.progress import wants_previews
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.translate import translate
from invokeclone.shims.comfyui.workflow import NodeLink, WorkflowRejected, check
from tests.shims.comfyui import text_to_image
from tests.shims.test_comfyui_nodes import CATALOG, with_inputs


def refusal(workflow: Any) -> dict[str, Any]:
    with pytest.raises(WorkflowRejected) as refused:
        check(workflow, CATALOG)
    return refused.value.body


def without(node: str, name: str) -> dict[str, Any]:
    workflow = text_to_image()
    del workflow[node]["inputs"][name]
    return workflow


@pytest.mark.parametrize(
    ("workflow", "node", "kind", "message", "details"),
    [
        (without("3", "model"), "3", "required_input_missing", "Required input is missing", "model"),
        (without("3", "seed"), "3", "required_input_missing", "Required input is missing", "seed"),
        (
            with_inputs(text_to_image(), "3", model=None),
            "3",
            "required_input_missing",
            "Required input is missing",
            "model",
        ),
        (
            with_inputs(text_to_image(), "4", ckpt_name="other.safetensors"),
            "4",
            "value_not_in_list",
            "Value not in list",
            "ckpt_name: 'other.safetensors' not in ['Embedded Tiny', 'Other']",
        ),
        (
            with_inputs(text_to_image(), "3", sampler_name="dpm_adaptive"),
            "3",
            "value_not_in_list",
            "Value not in list",
            "sampler_name: 'dpm_adaptive' not in (list of length 24)",
        ),
        (
            with_inputs(text_to_image(), "3", sampler_name=3),
            "3",
            "value_not_in_list",
            "Value not in list",
            "sampler_name: '3' not in (list of length 24)",
        ),
        (
            with_inputs(text_to_image(), "6", clip=["4", 0]),
            "6",
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            "clip, received_type(MODEL) mismatch input_type(CLIP)",
        ),
        (
            with_inputs(text_to_image(), "6", clip="4"),
            "6",
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            "clip, received_value(4)",
        ),
        (
            with_inputs(text_to_image(), "6", clip=["4"]),
            "6",
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            "clip, received_value(['4'])",
        ),
        (
            with_inputs(text_to_image(), "6", clip=["99", 0]),
            "6",
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            "clip, received_value(['99', 0])",
        ),
        (
            with_inputs(text_to_image(), "6", clip=["4", 3]),
            "6",
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            "clip, received_value(['4', 3])",
        ),
        (
            with_inputs(text_to_image(), "3", steps="many"),
            "3",
            "invalid_input_type",
            "Failed to convert an input value to a INT value",
            "steps, many, invalid literal for int() with base 10: 'many'",
        ),
        (
            with_inputs(text_to_image(), "3", cfg={}),
            "3",
            "invalid_input_type",
            "Failed to convert an input value to a FLOAT value",
            "cfg, {}, float() argument must be a string or a real number, not 'dict'",
        ),
        (
            with_inputs(text_to_image(), "3", steps=0),
            "3",
            "value_smaller_than_min",
            "Value 0 smaller than min of 1",
            "steps",
        ),
        (
            with_inputs(text_to_image(), "3", denoise=1.5),
            "3",
            "value_bigger_than_max",
            "Value 1.5 bigger than max of 1.0",
            "denoise",
        ),
        (
            text_to_image(batch_size=17),
            "5",
            "value_bigger_than_max",
            "Value 17 bigger than max of 16",
            "batch_size",
        ),
    ],
)
def test_invalid_inputs_are_refused_with_details(
    workflow: dict[str, Any], node: str, kind: str, message: str, details: str
) -> None:
    body = refusal(workflow)
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert body["error"]["message"] == "Prompt outputs failed validation"
    assert body["error"]["details"] == f"{message}: {details}"
    assert list(body["node_errors"]) == [node]
    node_error = body["node_errors"][node]
    assert node_error["class_type"] == workflow[node]["class_type"]
    assert node_error["dependent_outputs"] == ["9"]
    (error,) = node_error["errors"]
    assert (error["type"], error["message"], error["details"]) == (kind, message, details)
    assert error["extra_info"]["input_name"] == details.split(",", maxsplit=1)[0].split(":", maxsplit=1)[0]


def test_unknown_node_type_is_named() -> None:
    workflow = text_to_image()
    workflow["4"] |= {"class_type": "NunchakuLoader", "_meta": {"title": "Load Model"}}
    body = refusal(workflow)
    assert body == {
        "error": {
            "type": "missing_node_type",
            "message": "Cannot execute because node NunchakuLoader does not exist.",
            "details": "Node ID '#4': this server has the nodes that /object_info lists, replace it by one of these",
            "extra_info": {"node_id": "4", "class_type": "NunchakuLoader", "node_title": "Load Model"},
        },
        "node_errors": {},
    }
    assert refusal({"1": {"inputs": {}}})["error"]["type"] == "missing_node_type"
    assert refusal({"1": None})["error"]["type"] == "missing_node_type"


def test_workflow_without_outputs_is_refused() -> None:
    workflow = text_to_image()
    del workflow["9"]
    assert refusal(workflow)["error"]["type"] == "prompt_no_outputs"
    assert refusal({})["error"]["type"] == "prompt_no_outputs"
    assert refusal([])["error"]["type"] == "invalid_prompt"


def test_each_node_of_a_cycle_has_the_error() -> None:
    body = refusal(with_inputs(text_to_image(), "3", latent_image=["8", 0]))
    path = "8 (VAEDecode) <- 3 (KSampler) <- 8 (VAEDecode)"
    assert (body["error"]["type"], body["error"]["details"]) == (
        "prompt_outputs_failed_validation",
        f"Dependency cycle detected: {path}",
    )
    assert list(body["node_errors"]) == ["8", "3"]
    assert body["node_errors"]["3"] == {
        "errors": [
            {
                "type": "dependency_cycle",
                "message": "Dependency cycle detected",
                "details": path,
                "extra_info": {"node_id": "3", "cycle_nodes": ["8", "3"]},
            }
        ],
        "dependent_outputs": ["9"],
        "class_type": "KSampler",
    }
    assert [*refusal(with_inputs(text_to_image(), "4", ckpt_name=["9", 0]))["node_errors"]] == ["9", "8", "3", "4"]


def test_self_referencing_node_is_refused() -> None:
    workflow = {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
    }
    assert refusal(workflow)["error"]["details"] == "Dependency cycle detected: 1 (ImageInvert) <- 1 (ImageInvert)"


def test_too_many_nodes_are_refused() -> None:
    workflow = {str(number): {"class_type": "Note", "inputs": {}} for number in range(DEFAULT_LIMITS.comfyui_nodes + 1)}
    assert refusal(workflow)["error"]["type"] == "too_many_nodes"


def test_a_long_chain_is_followed_to_its_end() -> None:
    workflow: dict[str, Any] = {"0": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    for number in range(1, DEFAULT_LIMITS.comfyui_nodes - 1):
        workflow[str(number)] = {"class_type": "ImageInvert", "inputs": {"image": [str(number - 1), 0]}}
    last = {"images": [str(DEFAULT_LIMITS.comfyui_nodes - 2), 0], "filename_prefix": ""}
    workflow["end"] = {"class_type": "SaveImage", "inputs": last}
    checked = check(workflow, CATALOG)
    assert checked.order == list(workflow)


def test_good_outputs_run_without_the_bad_ones() -> None:
    workflow = text_to_image()
    workflow["10"] = {"class_type": "PreviewImage", "inputs": {"images": ["11", 0]}}
    workflow["11"] = {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}}
    checked = check(workflow, CATALOG)
    assert checked.outputs == ["9"]
    assert "11" not in checked.order
    assert checked.errors["11"]["dependent_outputs"] == ["10"]
    assert "3" in checked.order


def test_all_errors_of_a_chain_are_reported() -> None:
    workflow = with_inputs(text_to_image(), "4", ckpt_name="nothing")
    with_inputs(workflow, "6", clip=["4", 2])
    assert set(refusal(workflow)["node_errors"]) == {"4", "6"}


def test_values_are_converted_to_their_types() -> None:
    workflow = with_inputs(text_to_image(), "3", steps="20", cfg=8, seed=3.0, denoise="0.5")
    with_inputs(workflow, "6", text=5)
    values = check(workflow, CATALOG).inputs
    assert values["3"] | {"steps": 20, "cfg": 8.0, "seed": 3, "denoise": 0.5} == values["3"]
    assert values["6"]["text"] == "5"
    assert values["3"]["model"] == NodeLink("4", 0)
    assert "extra" not in check(with_inputs(text_to_image(), "3", extra=[["9"]]), CATALOG).inputs["3"]


@pytest.mark.parametrize("value", [float("inf"), 10**400, "9" * 10_000, True, [], {}])
def test_unusual_numbers_are_converted_or_refused_with_short_errors(value: Any) -> None:
    workflow = with_inputs(text_to_image(), "3", steps=value)
    if value is True:
        assert check(workflow, CATALOG).inputs["3"]["steps"] == 1
    else:
        (error,) = refusal(workflow)["node_errors"]["3"]["errors"]
        assert len(str(error)) < 2000


def test_model_input_is_missing_when_no_models_are_installed() -> None:
    workflow = with_inputs(text_to_image(), "4", ckpt_name=None)
    with pytest.raises(WorkflowRejected) as refused:
        check(workflow, Catalog())
    assert refused.value.body["node_errors"]["4"]["errors"][0]["type"] == "required_input_missing"


def test_errors_of_the_graph_are_those_of_a_node() -> None:
    """ComfyUI allows a cfg below 1, this model's node does not."""
    registry.discover()
    workflow = with_inputs(text_to_image(), "3", cfg=0.5)
    with pytest.raises(WorkflowRejected) as refused:
        translate(PromptRecord(workflow, []), CATALOG, "3fa85f64-5717-4562-b3fc-2c963f66afa6")
    body = refused.value.body
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert list(body["node_errors"]) == ["3"]
    (error,) = body["node_errors"]["3"]["errors"]
    assert error["details"] == "cfg_scale must be at least 1 in every step"


def test_errors_have_what_clients_show() -> None:
    mismatch = refusal(with_inputs(text_to_image(), "6", clip=["4", 0]))["node_errors"]["6"]["errors"][0]["extra_info"]
    assert (mismatch["received_type"], mismatch["linked_node"]) == ("MODEL", ["4", 0])
    wrong = refusal(with_inputs(text_to_image(), "3", steps="x"))["node_errors"]["3"]["errors"][0]["extra_info"]
    assert wrong["received_value"] == "x"
    assert "invalid literal" in wrong["exception_message"]
    assert check(with_inputs(text_to_image(), "3", steps={"__value__": 7}), CATALOG).inputs["3"]["steps"] == 7
    for target, outputs in ((["9"], ["9"]), (None, ["9"])):
        assert check(text_to_image(), CATALOG, targets=target).outputs == outputs


@pytest.mark.parametrize(
    ("method", "default", "expected"),
    [
        (None, False, False),
        (None, True, True),
        ("default", True, True),
        ("default", False, False),
        ("none", True, False),
        ("auto", False, True),
        ("taesd", False, True),
        (["auto"], False, False),
    ],
)
def test_previews_are_sent_on_request_or_by_the_setting(method: Any, default: bool, expected: bool) -> None:
    prompt_record = PromptRecord({}, [], "me", {"preview_method": method} if method else {})
    assert wants_previews(prompt_record, default=default) is expected

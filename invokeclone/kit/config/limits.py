"""Limits on the size of requests, one setting per size that a client controls (`limits` in `invokeai.yaml`).

The table in docs/limits.md is generated from this module.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.kit.errors import Unprocessable

MIB = 1024 * 1024


def _limit(default: int, maximum: int, text: str) -> Any:
    return Field(default, ge=1, le=maximum, description=text)


class Limits(BaseModel):
    """Size limits. A larger request gets 413 or 422, or is cut where the description says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Bodies
    json_mib: int = _limit(16, 1024, "MiB of a JSON body in InvokeAI's API.")
    image_json_mib: int = _limit(
        64, 1024, "MiB of a JSON body in a compatibility API, which may contain images in base64."
    )
    upload_mib: int = _limit(
        256, 16_384, "MiB of an uploaded form including its files, or of an image of a joined worker."
    )
    video_mib: int = _limit(1024, 65_536, "MiB of an uploaded video.")
    json_values: int = _limit(500_000, 20_000_000, "Values in a JSON body: members, elements, objects and lists.")
    json_depth: int = _limit(100, 120, "Nesting depth of objects and lists in a JSON body.")
    text_kib: int = _limit(
        16_384, 1_048_576, "KiB of one string in a JSON body in InvokeAI's API, as UTF-8 including escapes."
    )
    names: int = _limit(
        10_000, 30_000, "Names, ids or keys in one list of a request body, where no smaller limit applies."
    )

    # The queue
    graph_nodes: int = _limit(10_000, 1_000_000, "Nodes of a graph.")
    graph_edges: int = _limit(20_000, 4_000_000, "Edges of a graph.")
    batch_fields: int = _limit(1_000, 100_000, "Node fields that the data of a batch sets.")
    batch_values: int = _limit(200_000, 20_000_000, "Values in the data of a batch, summed over all fields.")
    batch_mib: int = _limit(
        512, 65_536, "MiB of the sessions of one batch: size of the graph times the number of queued items."
    )

    # Nodes
    session_nodes: int = _limit(
        200_000, 5_000_000, "Nodes of a running graph after expansion, one for each value of each iteration."
    )
    node_output_mib: int = _limit(64, 1024, "MiB of the outputs of one node as JSON.")
    collection_items: int = _limit(100_000, 10_000_000, "Values in a list that a node outputs.")

    # Images
    image_pixels: int = _limit(128 * MIB, 1_000_000_000, "Pixels of an input image, checked before decoding.")
    image_side: int = _limit(65_535, 1_000_000, "Pixels of the longer side of an image that is read or created.")
    target_pixels: int = _limit(16 * MIB, 1_000_000_000, "Pixels that an upload is resized to.")
    node_pixels: int = _limit(128 * MIB, 4_000_000_000, "Pixels of an image that a node creates.")

    # Prompts and files
    prompt_characters: int = _limit(
        50_000, 1_000_000, "Characters of a prompt, a dynamic prompt or an instruction for a language model."
    )
    dynamic_prompts: int = _limit(10_000, 10_000, "Prompts requested from one dynamic prompt.")
    text_file_mib: int = _limit(16, 1024, "MiB of a text file that a node reads.")

    # Compatibility APIs
    request_images: int = _limit(
        32, 1_000, "Images that one request of the OpenAI, AUTOMATIC1111 or Gemini API generates or upscales."
    )
    image_file_mib: int = _limit(50, 1024, "MiB of one image sent to a compatibility API, after base64 decoding.")
    plain_json_kib: int = _limit(4096, 65_536, "KiB of a JSON body in a compatibility API on a route without images.")
    comfyui_nodes: int = _limit(
        500, 10_000, "Nodes of a ComfyUI prompt; the resulting graph may have four times as many."
    )
    comfyui_sockets: int = _limit(200, 100_000, "Open sockets of the ComfyUI API per user.")
    comfyui_file_mib: int = _limit(16, 1024, "MiB of one file that a user stores through the ComfyUI API.")
    comfyui_files: int = _limit(1_000, 100_000, "Files per user that are stored through the ComfyUI API.")

    # Lists and files of records
    page_items: int = _limit(10_000, 1_000_000, "Boards or workflows per page.")
    import_rows: int = _limit(1_000, 100_000, "Style presets in one imported file.")
    presets: int = _limit(10_000, 1_000_000, "Style presets per user.")
    webhooks: int = _limit(20, 1_000, "Webhooks per user.")
    download_images: int = _limit(10_000, 1_000_000, "Images per zip file.")

    # Sockets
    socket_message_kib: int = _limit(100, 65_536, "KiB of one message that a client sends over a socket.")
    socket_rooms: int = _limit(50, 10_000, "Rooms per socket; further subscriptions are ignored.")
    sockets: int = _limit(1_000, 100_000, "Open socket.io connections.")


DEFAULT_LIMITS = Limits()


def check_prompt(text: str, limits: Limits, what: str = "the prompt") -> None:
    """Raise Unprocessable for a prompt, or another input text of a model, that is too long."""
    if len(text) > limits.prompt_characters:
        raise Unprocessable(
            f"{what} has {len(text)} characters, over {limits.prompt_characters} (setting limits.prompt_characters)"
        )


def table() -> str:
    """Return the Markdown table for docs/limits.md."""
    lines = ["| setting | default | most | what it limits |", "|---|---:|---:|---|"]
    for name, field in Limits.model_fields.items():
        maximum = next(item.le for item in field.metadata if hasattr(item, "le"))
        lines.append(f"| `{name}` | {field.default:,} | {maximum:,} | {field.description} |")
    return "\n".join(lines) + "\n"

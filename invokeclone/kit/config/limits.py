"""How much one request may bring or ask for: a setting for each size that a client controls, under `limits` in `invokeai.yaml`.

docs/limits.md is the table of them, written from here.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.kit.errors import Unprocessable

MIB = 1024 * 1024


def _limit(default: int, maximum: int, text: str) -> Any:
    return Field(default, ge=1, le=maximum, description=text)


class Limits(BaseModel):
    """The largest of each kind that is accepted; what is over one is answered with 413 or 422, or cut where the text says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Bodies
    json_mib: int = _limit(16, 1024, "MiB of a JSON body of InvokeAI's API.")
    image_json_mib: int = _limit(
        64, 1024, "MiB of a JSON body of a compatibility API, which may hold images in base64."
    )
    upload_mib: int = _limit(256, 16_384, "MiB of an uploaded form, with its files.")
    video_mib: int = _limit(1024, 65_536, "MiB of an uploaded video.")
    json_values: int = _limit(500_000, 20_000_000, "Values in a JSON body: members, elements, objects and lists.")
    json_depth: int = _limit(100, 120, "Objects and lists inside each other in a JSON body.")
    text_kib: int = _limit(
        16_384, 1_048_576, "KiB of one text in a JSON body of InvokeAI's API, as UTF-8 with its escapes."
    )
    names: int = _limit(
        10_000, 30_000, "Names, ids or keys in one list of a body that has no smaller limit of its own."
    )

    # The queue
    graph_nodes: int = _limit(10_000, 1_000_000, "Nodes of a graph.")
    graph_edges: int = _limit(20_000, 4_000_000, "Edges of a graph.")
    batch_fields: int = _limit(1_000, 100_000, "Node fields that the data of a batch set.")
    batch_values: int = _limit(200_000, 20_000_000, "Values in the data of a batch, all fields together.")
    batch_mib: int = _limit(
        512, 65_536, "MiB of the sessions of one batch: the graph's, times the items that are queued."
    )

    # Nodes
    session_nodes: int = _limit(
        200_000, 5_000_000, "Nodes that a running graph grows to, one for each value of each iteration."
    )
    node_output_mib: int = _limit(64, 1024, "MiB of what one node gives out, as JSON.")
    collection_items: int = _limit(100_000, 10_000_000, "Values of a list that a node gives out.")

    # Images
    image_pixels: int = _limit(
        128 * MIB, 1_000_000_000, "Pixels of an image that is read, looked at before it is decoded."
    )
    image_side: int = _limit(65_535, 1_000_000, "Pixels of the longer side of an image that is read or made.")
    target_pixels: int = _limit(16 * MIB, 1_000_000_000, "Pixels that an upload is resized to.")
    node_pixels: int = _limit(128 * MIB, 4_000_000_000, "Pixels of an image that a node makes.")

    # Prompts and files
    prompt_characters: int = _limit(
        50_000, 1_000_000, "Characters of a prompt, a pattern of prompts or an instruction for a language model."
    )
    dynamic_prompts: int = _limit(10_000, 10_000, "Prompts that a pattern of dynamic prompts is to make.")
    text_file_mib: int = _limit(16, 1024, "MiB of a text file that a node reads.")

    # Compatibility APIs
    request_images: int = _limit(
        32, 1_000, "Images that one request of OpenAI's, AUTOMATIC1111's or Gemini's API asks for or brings to enlarge."
    )
    image_file_mib: int = _limit(50, 1024, "MiB of one image that is sent to a compatibility API, decoded from base64.")
    plain_json_kib: int = _limit(
        4096, 65_536, "KiB of a JSON body of a compatibility API on a route that takes no images."
    )
    comfyui_nodes: int = _limit(
        500, 10_000, "Nodes of a prompt of ComfyUI's; the graph that it becomes may have four times as many."
    )
    comfyui_sockets: int = _limit(200, 100_000, "Sockets of ComfyUI's API that one user has open at a time.")

    # Lists and files of records
    page_items: int = _limit(10_000, 1_000_000, "Boards or workflows that one page is to hold.")
    import_rows: int = _limit(1_000, 100_000, "Style presets in one imported file.")
    presets: int = _limit(10_000, 1_000_000, "Style presets of one user.")
    download_images: int = _limit(10_000, 1_000_000, "Images in one zip file.")

    # Sockets
    socket_message_kib: int = _limit(100, 65_536, "KiB of one message that a client sends over a socket.")
    socket_rooms: int = _limit(50, 10_000, "Rooms that one socket is in; more subscriptions are ignored.")
    sockets: int = _limit(1_000, 100_000, "Sockets of socket.io that are open at a time.")


DEFAULT_LIMITS = Limits()


def check_prompt(text: str, limits: Limits, what: str = "the prompt") -> None:
    """Raise Unprocessable for a prompt, or another text for a model, that is too long."""
    if len(text) > limits.prompt_characters:
        raise Unprocessable(
            f"{what} has {len(text)} characters, more than {limits.prompt_characters} (setting limits.prompt_characters)"
        )


def table() -> str:
    """Return the table of docs/limits.md."""
    lines = ["| setting | default | most | what it limits |", "|---|---:|---:|---|"]
    for name, field in Limits.model_fields.items():
        maximum = next(item.le for item in field.metadata if hasattr(item, "le"))
        lines.append(f"| `{name}` | {field.default:,} | {maximum:,} | {field.description} |")
    return "\n".join(lines) + "\n"

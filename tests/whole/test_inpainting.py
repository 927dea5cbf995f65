"""A part of an uploaded picture drawn anew: by a mask made in the graph, with the embedded model, pasted back."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.applications import encode_image
from tests.server_process import Server

SIZE, BOX, REACH = 128, (32, 32, 96, 96), 8
pytestmark = pytest.mark.timeout(280)

MADE = {
    "box": {
        "type": "rectangle_mask",
        "width": SIZE,
        "height": SIZE,
        "x_left": BOX[0],
        "y_top": BOX[1],
        "rectangle_width": BOX[2] - BOX[0],
        "rectangle_height": BOX[3] - BOX[1],
    },
    "around": {"type": "invert_tensor_mask"},
    "mask": {"type": "tensor_mask_to_image"},
    "bounds": {"type": "get_image_mask_bounding_box", "mask_color": {"r": 0, "g": 0, "b": 0, "a": 255}},
    "gradient": {"type": "create_gradient_mask", "edge_radius": REACH},
    "old": {"type": "i2l", "fp32": True},
    "fading": {"type": "expand_mask_with_fade", "fade_size_px": REACH},
    "pasted": {"type": "canvas_paste_back"},
}
LINES = [
    ("box.mask", "around.mask"),
    ("around.mask", "mask.mask"),
    ("mask.image", "bounds.mask"),
    ("mask.image", "gradient.mask"),
    ("gradient.denoise_mask", "denoise_latents.denoise_mask"),
    ("gradient.expanded_mask_area", "fading.mask"),
    ("sd1_model_loader.vae", "old.vae"),
    ("old.latents", "denoise_latents.latents"),
    ("fading.image", "pasted.mask"),
    ("canvas_output.image", "pasted.target_image"),
]


@pytest.fixture(scope="session")
def server(shared_server: Server) -> Server:
    return shared_server


def test_only_the_masked_part_changes(server: Server) -> None:
    ground = Image.linear_gradient("L").resize((SIZE, SIZE))
    source = Image.merge("RGB", (ground.rotate(90), ground, ground.rotate(180)))
    answer = server.client.post(
        "/api/v1/images/upload",
        params={"image_category": "user", "is_intermediate": False},
        files={"file": ("old.png", encode_image(source), "image/png")},
    )
    name = answer.json()["image_name"]
    body = server.batch("a yellow star on a black background", seed=3, steps=6, denoising_start=0.0)
    graph = body["batch"]["graph"]
    for node_id, fields in MADE.items():
        graph["nodes"][node_id] = {"id": node_id, "is_intermediate": node_id != "pasted", **fields}
    graph["nodes"]["old"]["image"] = graph["nodes"]["pasted"]["source_image"] = {"image_name": name}
    for line in LINES:
        ends = [dict(zip(("node_id", "field"), end.split("."), strict=True)) for end in line]
        graph["edges"].append(dict(zip(("source", "destination"), ends, strict=True)))
    (item_id,) = server.enqueue(body)
    item = server.finished(item_id)
    assert item["status"] == "completed", item.get("error_message")

    session = item["session"]
    (prepared,) = session["source_prepared_mapping"]["bounds"]
    box = session["results"][prepared]["bounding_box"]
    assert (box["x_min"], box["y_min"], box["x_max"], box["y_max"]) == BOX
    assert server.output_image(item, "mask")["image_category"] == "mask"

    response = server.client.get("/" + server.output_image(item, "pasted")["image_url"])
    with Image.open(io.BytesIO(response.content)) as picture:
        new = np.asarray(picture.convert("RGB"), dtype=int)
    change = np.abs(new - np.asarray(source, dtype=int)).max(axis=-1)
    assert change[BOX[1] : BOX[3], BOX[0] : BOX[2]].mean() > 10
    left, top, right, bottom = BOX
    reach = 2 * REACH + 8  # reducing the mask to latents makes the first one beyond its edge gray
    change[top - reach - 1 : bottom + reach + 1, left - reach - 1 : right + reach + 1] = 0
    assert not change.any()

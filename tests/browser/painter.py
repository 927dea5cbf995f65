"""A worker played by the test: it claims items and paints pictures instead of denoising them."""

import asyncio
import base64
import io
import json
from typing import Any

from PIL import Image, ImageDraw

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service as images
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims
from invokeclone.queue.events import InvocationCompleteEvent, InvocationProgressEvent, ProgressImage
from invokeclone.queue.rows import ClaimedItem


def paint(seed: int, size: tuple[int, int]) -> Image.Image:
    """Return a picture that differs by seed."""
    image = Image.new("RGB", size, ((seed * 67) % 200 + 30, (seed * 131) % 200 + 30, (seed * 29) % 200 + 30))
    width, height = size
    box = (width * 0.2, height * 0.25, width * 0.8, height * 0.75)
    ImageDraw.Draw(image).ellipse(box, fill=((seed * 91) % 255, (seed * 47) % 255, 220))
    return image


class Painter:
    """Claims items and paints them. `hold` stops it in the middle of each picture; `fail` makes it fail instead."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.go = asyncio.Event()
        self.go.set()
        self.fail = False
        self.items: list[dict[str, Any]] = []

    async def work(self) -> None:
        while True:
            item = await claims.claim(self.resources, "cpu")
            if item is None:
                await asyncio.sleep(0.02)
            else:
                await self.paint(item)

    async def paint(self, item: ClaimedItem) -> None:
        graph = json.loads(item.session)["graph"]
        self.items.append(graph)
        nodes = graph["nodes"]
        if self.fail:
            await claims.finish(
                self.resources, item.item_id, "failed", error=("ValueError", "no paint left", "traceback")
            )
            return
        size = (nodes["denoise_latents_noise"]["width"], nodes["denoise_latents_noise"]["height"])
        image = paint(nodes["seed"]["value"], size)
        for step in range(1, 5):
            self.progress(item, nodes, image, step / 4)
            await self.go.wait()
        if not await claims.is_running(self.resources, item.item_id):
            return
        metadata = {
            name: nodes["core_metadata"].get(name) for name in ("width", "height", "steps", "scheduler", "cfg_scale")
        }
        metadata |= {
            "positive_prompt": nodes["positive_prompt"]["value"],
            "negative_prompt": nodes["neg_cond"]["prompt"],
            "seed": nodes["seed"]["value"],
            "model": nodes["sd1_model_loader"]["model"],
        }
        saved_image = await images.save(
            self.resources,
            image,
            category=ImageCategory.GENERAL,
            origin=ResourceOrigin.INTERNAL,
            metadata=json.dumps(metadata),
            user_id=item.user_id,
            board_id=(nodes["canvas_output"].get("board") or {}).get("board_id"),
        )
        self.tell(
            InvocationCompleteEvent,
            item,
            nodes["canvas_output"],
            result={"image": {"image_name": saved_image.image_name}},
        )
        await claims.finish(self.resources, item.item_id, "completed")

    def progress(self, item: ClaimedItem, nodes: dict[str, Any], image: Image.Image, percentage: float) -> None:
        buffer = io.BytesIO()
        image.resize((16, 16)).save(buffer, "JPEG")
        address = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        preview = ProgressImage(width=image.width, height=image.height, dataURL=address)
        self.tell(
            InvocationProgressEvent,
            item,
            nodes["denoise_latents"],
            message="Denoising",
            percentage=percentage,
            image=preview,
        )

    def tell(self, kind: Any, item: ClaimedItem, node: dict[str, Any], **fields: Any) -> None:
        self.resources.events.emit(
            kind(
                queue_id=item.queue_id,
                item_id=item.item_id,
                batch_id=item.batch_id,
                session_id=item.session_id,
                user_id=item.user_id,
                invocation=node,
                invocation_source_id=node["id"],
                **fields,
            )
        )

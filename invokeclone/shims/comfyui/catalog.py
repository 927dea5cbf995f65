"""The models and images that workflows can refer to, by ComfyUI's lists.

It is read once per request; building a graph uses it instead of the database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import recipes
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ModelType
from invokeclone.images import access
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.models.records.matching import find_by_name
from invokeclone.queue import generation
from invokeclone.tables import images
from invokeclone.users.current import User

FOLDERS = {
    "checkpoints": "checkpoints",
    "diffusion_models": "checkpoints",
    "unet": "checkpoints",
    "text_encoders": "checkpoints",
    "clip": "checkpoints",
    "vae": "vae",
    "loras": "loras",
    "controlnet": "controlnet",
    "ipadapter": "ipadapter",
    "clip_vision": "clip_vision",
    "upscale_models": "upscale_models",
    "embeddings": "embeddings",
}
"""ComfyUI's model folders, and the list of the catalog for each."""
MAX_RECENT_IMAGES = 100
"""Number of the user's newest images that are offered as choices; others can be named too."""


@dataclass(frozen=True)
class LoadableImage:
    """Size of an image that a workflow can load."""

    width: int
    height: int


@dataclass(frozen=True)
class Catalog:
    """Models by list, and images."""

    mains: Sequence[ModelConfig] = ()
    vaes: Sequence[ModelConfig] = ()
    loras: Sequence[ModelConfig] = ()
    embeddings: Sequence[ModelConfig] = ()
    controls: Sequence[ModelConfig] = ()
    """ControlNets and T2I-Adapters."""
    ip_adapters: Sequence[ModelConfig] = ()
    image_encoders: Sequence[ModelConfig] = ()
    """CLIP vision models."""
    recent: Sequence[str] = ()
    loadable_images: Mapping[str, LoadableImage] = field(default_factory=dict)

    def names(self, list_name: str) -> list[str]:
        """Return the names in a list; that of upscale models is empty, because they are not supported yet."""
        if list_name == "images":
            return list(self.recent)
        return _unique([config.name for config in self._models(list_name)])

    def model(self, list_name: str, name: str) -> ModelConfig | None:
        """Return the model of a list that a name refers to."""
        return find_by_name(self._models(list_name), name)

    def _models(self, list_name: str) -> Sequence[ModelConfig]:
        lists: dict[str, Sequence[ModelConfig]] = {
            "checkpoints": self.mains,
            "vae": [*self.vaes, *self.mains],
            "loras": self.loras,
            "controlnet": self.controls,
            "ipadapter": self.ip_adapters,
            "clip_vision": self.image_encoders,
            "embeddings": self.embeddings,
        }
        return lists.get(list_name, ())


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


async def read(connection: AsyncConnection, user: User, image_names: Sequence[str] = ()) -> Catalog:
    """Read the models, the user's newest images, and those of `image_names` that exist and the user may see."""
    bases = list(recipes())

    async def usable(*types: ModelType) -> list[ModelConfig]:
        return [
            config for model_type in types for config in await models.search(connection, type=model_type, bases=bases)
        ]

    newest = (
        select(images.c.image_name)
        .where(images.c.user_id == user.user_id, images.c.image_category == ImageCategory.USER.value)
        .order_by(images.c.image_id.desc())
        .limit(MAX_RECENT_IMAGES)
    )
    return Catalog(
        await generation.generation_models(connection, refiners=True),
        await usable(ModelType.VAE),
        await usable(*generation.LORAS.types),
        await usable(ModelType.TextualInversion),
        await usable(*generation.CONTROLS.types),
        await usable(*generation.IP_ADAPTERS.types),
        await models.search(connection, type=ModelType.CLIPVision),
        list(await connection.scalars(newest)),
        await _loadable_images(connection, user, list(dict.fromkeys(image_names))),
    )


async def _loadable_images(connection: AsyncConnection, user: User, names: list[str]) -> dict[str, LoadableImage]:
    if not names:
        return {}
    allowed = await access.readable(connection, user, access.IMAGES, names)
    query = select(images.c.image_name, images.c.width, images.c.height).where(images.c.image_name.in_(allowed.names))
    return {row.image_name: LoadableImage(row.width, row.height) for row in await connection.execute(query)}

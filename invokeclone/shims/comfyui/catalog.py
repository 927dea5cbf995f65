"""The models and images that workflows can refer to, by ComfyUI's lists.

It is read once per request; building a graph uses it instead of the database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import every_recipe, recipes
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ModelType
from invokeclone.images import access
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.models.records.matching import find_by_name
from invokeclone.queue import generation
from invokeclone.shims.comfyui.files import uploads
from invokeclone.shims.comfyui.files.names import ImageName, PathOutside
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.tables import images
from invokeclone.users.current import User

FOLDERS = {
    "checkpoints": "checkpoints",
    "diffusion_models": "checkpoints",
    "unet": "checkpoints",
    "unet_gguf": "checkpoints",
    "text_encoders": "text_encoders",
    "clip": "text_encoders",
    "clip_gguf": "text_encoders",
    "vae": "vae",
    "loras": "loras",
    "controlnet": "controlnet",
    "model_patches": "controlnet",
    "ipadapter": "ipadapter",
    "clip_vision": "clip_vision",
    "style_models": "style_models",
    "upscale_models": "upscale_models",
    "embeddings": "embeddings",
}
"""ComfyUI's model folders, and the list of the catalog for each."""
MAX_RECENT_IMAGES = 100
"""Number of the user's newest images that are offered as choices; others can be named too."""


@dataclass(frozen=True)
class LoadableImage:
    """An image that a workflow can load."""

    width: int
    height: int
    image_name: str
    """The server's name."""


@dataclass(frozen=True)
class Catalog:
    """Models by list, and images."""

    mains: Sequence[ModelConfig] = ()
    vaes: Sequence[ModelConfig] = ()
    text_encoders: Sequence[ModelConfig] = ()
    """Separate text encoders; those of main models are named by the main model."""
    loras: Sequence[ModelConfig] = ()
    """LoRAs, and control LoRAs, which need a control image."""
    embeddings: Sequence[ModelConfig] = ()
    controls: Sequence[ModelConfig] = ()
    """ControlNets and T2I-Adapters."""
    ip_adapters: Sequence[ModelConfig] = ()
    image_encoders: Sequence[ModelConfig] = ()
    """CLIP vision models, and the image encoders of style models."""
    style_models: Sequence[ModelConfig] = ()
    recent: Sequence[str] = ()
    """Names of the user's newest uploads and images."""
    loadable_images: Mapping[str, LoadableImage] = field(default_factory=dict)
    """By the name in the workflow."""

    def names(self, list_name: str) -> list[str]:
        """Return the names in a list; that of upscale models is empty, because they are not supported yet."""
        if list_name == "images":
            return list(self.recent)
        return _unique([config.name for config in self.configs(list_name)])

    def model(self, list_name: str, name: str) -> ModelConfig | None:
        """Return the model of a list that a name refers to."""
        return find_by_name(self.configs(list_name), name)

    def configs(self, list_name: str) -> Sequence[ModelConfig]:
        """Return the records of the models in a list."""
        lists: dict[str, Sequence[ModelConfig]] = {
            "checkpoints": self.mains,
            "text_encoders": [*self.mains, *self.text_encoders],
            "vae": [*self.vaes, *self.mains],
            "loras": self.loras,
            "controlnet": self.controls,
            "ipadapter": self.ip_adapters,
            "clip_vision": self.image_encoders,
            "style_models": self.style_models,
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

    async def usable_with_any(*types: ModelType) -> list[ModelConfig]:
        return [
            config for model_type in dict.fromkeys(types) for config in await models.search(connection, type=model_type)
        ]

    styles = [recipe.style_model for recipe in every_recipe() if recipe.style_model is not None]
    return Catalog(
        await generation.generation_models(connection, refiners=True),
        await usable(ModelType.VAE),
        await usable_with_any(*_encoder_types()),
        await usable(*generation.LORAS.types, ModelType.ControlLoRa),
        await usable(ModelType.TextualInversion),
        await usable(ModelType.ControlNet, ModelType.T2IAdapter),
        await usable(*generation.IP_ADAPTERS.types),
        await usable_with_any(ModelType.CLIPVision, *(kind.image_encoder for kind in styles)),
        await usable(*(kind.type for kind in styles)),
        await _recent_names(connection, user),
        await _loadable_images(connection, user, list(dict.fromkeys(image_names))),
    )


def _encoder_types() -> list[ModelType]:
    """Return the types of the separate text encoders that main models can use."""
    kinds = [kind.type for recipe in every_recipe() for kind in recipe.separate_parts.values()]
    return [kind for kind in kinds if kind != ModelType.VAE]


async def _recent_names(connection: AsyncConnection, user: User) -> list[str]:
    """Return the paths of the user's newest uploads, then the names of other new images."""
    uploaded = await uploads.newest_inputs(connection, user, MAX_RECENT_IMAGES)
    newest = (
        select(images.c.image_name)
        .where(images.c.user_id == user.user_id, images.c.image_category == ImageCategory.USER.value)
        .order_by(images.c.image_id.desc())
        .limit(MAX_RECENT_IMAGES)
    )
    stored_names = {*uploaded.values()}
    return [*uploaded, *(name for name in await connection.scalars(newest) if name not in stored_names)]


async def _loadable_images(connection: AsyncConnection, user: User, texts: list[str]) -> dict[str, LoadableImage]:
    """Return the existing images that a workflow names and the user may see, by these names."""
    parsed_names = {text: name for text in texts if (name := _parse_name(text)) is not None}
    stored_names = await uploads.resolve(connection, user, list(parsed_names.values()))
    allowed = await access.readable(connection, user, access.IMAGES, list(stored_names.values()))
    query = select(images.c.image_name, images.c.width, images.c.height).where(images.c.image_name.in_(allowed.names))
    sizes = {row.image_name: (row.width, row.height) for row in await connection.execute(query)}
    names = {text: stored_names[name] for text, name in parsed_names.items() if name in stored_names}
    return {text: LoadableImage(*sizes[name], name) for text, name in names.items() if name in sizes}


def _parse_name(text: str) -> ImageName | None:
    try:
        return ImageName.parse(text)
    except (RequestRejected, PathOutside):
        return None

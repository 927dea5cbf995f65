"""What nodes ask of the context, asked from a node of a running session; stores are real, models are fake."""

import base64
import io
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image
from sqlalchemy import insert

from invokeclone.boards import store as boards_store
from invokeclone.graph.context import CanceledException, PipelineIntermediateState
from invokeclone.graph.sizes import SizeOverLimit
from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ImageCategory, ModelType, SubModelType
from invokeclone.images.errors import ImageNotFound, ImageNotYours, NotYourBoard
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import Forbidden, NotFound
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import UnknownModelException
from invokeclone.models.identify import registry
from invokeclone.models.records import events as models_events
from invokeclone.models.records import store as models_store
from invokeclone.presets import prompts as system_prompts
from invokeclone.presets import store as presets_store
from invokeclone.presets.schemas import PresetForm, PresetType, SystemPromptWithoutId
from invokeclone.tables import users
from invokeclone.users.current import SYSTEM
from invokeclone.worker.interfaces.context import Context
from invokeclone.worker.interfaces.models import AmbiguousModel
from invokeclone.worker.interfaces.progress import progress_fraction
from invokeclone.worker.interfaces.tools import Tools
from tests.worker.conftest import Ask, FakeEngine
from tests.worker.joined import Link, join


@pytest.fixture(params=["local", "joined"])
def runs(request: pytest.FixtureRequest, tools: Tools, engine: FakeEngine, link: Link, tmp_path: Path) -> Tools:
    """Return the tools of a worker on the server's database and files, or of one that has neither."""
    local: Tools = replace(tools, engine=engine)  # type: ignore[arg-type]
    return local if request.param == "local" else join(local, link, tmp_path / "joined")


async def error_text(
    ask: Ask, question: Callable[[Context], Any], error: type[Exception], item: dict[str, Any] | None = None
) -> str:
    """Return the text of the error that `question` raises in the node."""

    def careful(context: Context) -> str:
        with pytest.raises(error) as info:
            question(context)
        return str(info.value)

    return str(await ask(careful, item))


def chunks(path: Path) -> dict[str, Any]:
    """Return what is embedded in a PNG."""
    with Image.open(path) as image:
        return {key: orjson.loads(value) for key, value in image.info.items() if key.startswith("invokeai")}


async def test_saved_image_has_its_metadata_workflow_and_graph(ask: Ask, resources: Resources, channel: Any) -> None:
    async with resources.database.write() as connection:
        board = await boards_store.create(connection, "Mine")

    def save(context: Context) -> tuple[ImageDTO, Path, str]:
        dto = context.images.save(Image.new("RGB", (12, 10), "blue"))
        return dto, context.images.get_path(dto.image_name), context.data.invocation.id

    workflow = orjson.dumps({"name": "w", "nodes": [], "edges": []}).decode()
    fields = {"is_intermediate": True, "board": {"board_id": board.board_id}, "metadata": {"seed": 7}}
    dto, path, node_id = await ask(save, {"workflow": workflow}, **fields)
    assert (dto.width, dto.height, dto.image_category, dto.image_origin) == (12, 10, "general", "internal")
    assert (dto.is_intermediate, dto.board_id, dto.node_id, dto.has_workflow) == (True, board.board_id, node_id, True)
    embedded = chunks(path)
    assert embedded["invokeai_metadata"] == {"seed": 7}
    assert embedded["invokeai_workflow"]["name"] == "w"
    assert set(embedded["invokeai_graph"]["nodes"]) == {"ask"}
    progress = [data["message"] for name, data in channel.sent if name == "invocation_progress"]
    assert progress == ["Saving image"]


async def test_an_image_over_the_limit_is_not_saved(ask: Ask, resources: Resources) -> None:
    resources.settings = resources.settings.model_copy(update={"limits": Limits(node_pixels=100)})
    assert (await ask(lambda context: context.images.save(Image.new("L", (10, 10))))).width == 10
    text = await error_text(ask, lambda context: context.images.save(Image.new("L", (101, 1))), SizeOverLimit)
    assert "limits.node_pixels" in text
    assert len(list(resources.settings.outputs_path.rglob("*.png"))) == 1


async def test_save_arguments_override_the_node_fields(ask: Ask, resources: Resources) -> None:
    def save(context: Context) -> tuple[ImageDTO, Any]:
        dto = context.images.save(
            Image.new("L", (3, 3)), image_category=ImageCategory.MASK, metadata=MetadataField.model_validate({"a": 1})
        )
        return dto, context.images.get_metadata(dto.image_name)

    dto, metadata = await ask(save, metadata={"seed": 7})
    assert dto.image_category == "mask"
    assert metadata.root == {"a": 1}


async def test_images_are_returned_as_copies_from_memory_and_disk(ask: Ask, tools: Tools) -> None:
    def use(context: Context) -> list[Any]:
        name = context.images.save(Image.new("RGB", (4, 4), (9, 8, 7))).image_name
        first = context.images.get_pil(name)
        first.putpixel((0, 0), (0, 0, 0))
        again = context.images.get_pil(name).getpixel((0, 0))
        gray = context.images.get_pil(name, "L").mode
        tools.images.forget([name])
        disk = context.images.get_pil(name)
        path = context.images.get_path(name, thumbnail=True)
        return [
            again,
            gray,
            disk.getpixel((1, 1)),
            disk.mode,
            path.suffix,
            context.images.get_dto(name).image_name == name,
        ]

    assert await ask(use) == [(9, 8, 7), "L", (9, 8, 7), "RGB", ".webp", True]


async def test_missing_image_is_an_error(ask: Ask) -> None:
    for question in ("get_pil", "get_dto", "get_metadata", "get_path"):
        await error_text(
            ask, lambda context, question=question: getattr(context.images, question)("no.png"), ImageNotFound
        )


async def test_boards(ask: Ask) -> None:
    def use(context: Context) -> list[Any]:
        board = context.boards.create("New")
        name = context.images.save(Image.new("RGB", (2, 2))).image_name
        context.boards.add_image_to_board(board.board_id, name)
        on_board = context.boards.get_all_image_names_for_board(board.board_id)
        board_dto = context.boards.get_dto(board.board_id)
        return [
            on_board == [name],
            board_dto.board_name,
            [dto.board_name for dto in context.boards.get_all()],
            board_dto.user_id,
        ]

    assert await ask(use) == [True, "New", ["New"], "system"]


async def test_private_boards_of_other_users_are_hidden(ask: Ask, resources: Resources) -> None:
    async with resources.database.write() as connection:
        await boards_store.create(connection, "Private", "somebody")
        await boards_store.create(connection, "Own", "me")
    names = await ask(lambda context: [board.board_name for board in context.boards.get_all()], {"user_id": "me"})
    assert names == ["Own"]


async def test_node_has_the_rights_of_the_item_owner(ask: Ask, resources: Resources) -> None:
    """Another user's picture is not read (not even from memory), and nothing is put on another's board."""
    async with resources.database.write() as connection:
        private = (await boards_store.create(connection, "Private", "ann")).board_id
    size = Image.new("RGB", (2, 2))
    name = await ask(lambda context: context.images.save(size, board_id=private).image_name, {"user_id": "ann"})
    assert await ask(lambda context: context.images.get_dto(name).board_id, {"user_id": "ann"}) == private
    for question in ("get_pil", "get_dto", "get_metadata", "get_path"):
        await error_text(
            ask,
            lambda context, question=question: getattr(context.images, question)(name),
            ImageNotYours,
            {"user_id": "bob"},
        )
    left = await ask(lambda context: context.images.save(size, board_id=private).board_id, {"user_id": "bob"})
    assert left is None
    for question in ("get_dto", "get_all_image_names_for_board"):
        await error_text(
            ask,
            lambda context, question=question: getattr(context.boards, question)(private),
            NotYourBoard,
            {"user_id": "bob"},
        )
    assert await ask(lambda context: context.images.get_dto(name).image_name) == name  # `system` is an admin


def config(**changes: Any) -> ModelConfig:
    """Return a record as it might be registered."""
    defaults: dict[str, Any] = {
        "key": "k1",
        "hash": "blake3:1",
        "path": "sd1/tiny",
        "file_size": 1,
        "name": "Tiny",
        "source": "/tiny",
        "source_type": "path",
        "type": "main",
        "format": "diffusers",
        "base": "sd-1",
        "prediction_type": "epsilon",
        "variant": "normal",
    }
    return registry.parse({**defaults, **changes})


@pytest.fixture
async def models(resources: Resources) -> None:
    folder = resources.settings.models_path / "sd1" / "tiny"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights.bin").write_bytes(b"weights")
    async with resources.database.write() as connection:
        await models_store.add(connection, config())
        await models_store.add(connection, config(key="k2", path="a", name="Twin"))
        await models_store.add(connection, config(key="k3", path="b", name="Twin"))


@pytest.mark.usefixtures("models")
async def test_each_load_is_reported_before_and_after(
    ask: Ask, channel: Any, engine: FakeEngine, resources: Resources, runs: Tools
) -> None:
    identifier = ModelIdentifierField(
        key="k1", hash="h", name="n", base=BaseModelType.StableDiffusion1, type=ModelType.Main, submodel_type="unet"
    )

    def load(context: Context) -> list[Any]:
        return [context.models.load(identifier), context.models.load("k1", SubModelType.VAE), context.models.load("k1")]

    assert await ask(load) == ["loaded Tiny"] * 3
    path = engine.asked[0][1]
    assert engine.asked == [("k1", path, "unet"), ("k1", path, "vae"), ("k1", path, None)]
    assert [file.read_bytes() for file in path.rglob("*.*")] == [b"weights"]
    assert (path == resources.settings.models_path / "sd1/tiny") is (runs.remote is None)
    sent = [(name, data) for name, data in channel.sent if not name.startswith("invocation_c")][1:]
    events = [(name, data) for name, data in sent if data.get("message") != "Fetching model Tiny"]
    assert (len(events) < len(sent)) is (runs.remote is not None)
    assert [name for name, _ in events] == ["invocation_progress", "model_load_started", "model_load_complete"] * 3
    assert [data["message"] for _, data in events[::3]] == [
        "Loading model Tiny (unet)",
        "Loading model Tiny (vae)",
        "Loading model Tiny",
    ]
    kinds = (models_events.ModelLoadStartedEvent, models_events.ModelLoadCompleteEvent)
    for kind, (name, data) in zip(kinds, events[1:3], strict=True):
        assert kind.name == name
        assert set(data) == set(kind.model_fields)
        kind.model_validate(data)
        assert (data["config"]["name"], data["submodel_type"], data["user_id"]) == ("Tiny", "unet", "system")


@pytest.mark.usefixtures("models")
async def test_models_are_found_by_attributes_and_path(ask: Ask, resources: Resources) -> None:
    def use(context: Context) -> list[Any]:
        models = context.models
        return [
            models.exists("k1"),
            models.exists("nope"),
            models.get_config("k2").name,
            len(models.search_by_attrs(name="Twin")),
            len(models.search_by_attrs(base=BaseModelType.StableDiffusion1, type=ModelType.Main)),
            [model.key for model in models.search_by_path(Path("sd1/tiny"))],
            [model.key for model in models.search_by_path(resources.settings.models_path / "sd1/tiny")],
            [model.key for model in models.search_by_path(models.get_absolute_path(models.get_config("k1")))],
            models.get_absolute_path("sd1/tiny") == models.get_absolute_path(models.get_config("k1")),
            (models.get_absolute_path("sd1/tiny/unet") / "weights.bin").read_bytes(),
            models.get_absolute_path(__file__),
            models.load_by_attrs("Tiny", BaseModelType.StableDiffusion1, ModelType.Main),
        ]

    found = [True, False, "Twin", 2, 3, ["k1"], ["k1"], ["k1"], True, b"weights", Path(__file__), "loaded Tiny"]
    assert await ask(use) == found
    sd1, main = BaseModelType.StableDiffusion1, ModelType.Main
    await error_text(ask, lambda context: context.models.get_config("nope"), UnknownModelException)
    await error_text(ask, lambda context: context.models.load("nope"), UnknownModelException)
    await error_text(ask, lambda context: context.models.load_by_attrs("Nope", sd1, main), UnknownModelException)
    await error_text(ask, lambda context: context.models.load_by_attrs("Twin", sd1, main), AmbiguousModel)


async def test_unregistered_model_files_can_be_loaded(ask: Ask) -> None:
    assert await ask(lambda context: context.models.load_local_model(Path("/a/b"))) == Path("/a/b")
    assert await ask(lambda context: context.models.load_local_model(Path("/a/b"), lambda path: path.name)) == "b"


def state(step: int, **fields: Any) -> PipelineIntermediateState:
    """Return a step of four."""
    defaults: dict[str, Any] = {"order": 1, "total_steps": 4, "timestep": 0, "latents": "noisy"}
    return PipelineIntermediateState(step=step, **{**defaults, **fields})


async def test_a_step_is_reported_with_its_preview_and_the_images_size(
    ask: Ask, channel: Any, engine: FakeEngine
) -> None:
    def steps(context: Context) -> None:
        context.util.sd_step_callback(state(1), BaseModelType.StableDiffusion1)
        context.util.flux_step_callback(state(2, predicted_original="clean"))
        context.util.flux2_step_callback(state(4))
        context.util.sd_step_callback(state(4), BaseModelType.Wan)

    await ask(steps)
    events = [data for name, data in channel.sent if name == "invocation_progress"]
    assert [data["percentage"] for data in events] == [0.25, 0.5, 1.0, 1.0]
    assert {data["message"] for data in events} == {"Denoising"}
    sizes = [(data["image"]["width"], data["image"]["height"]) for data in events]
    assert sizes == [(128, 64), (128, 64), (128, 64), (256, 128)]
    head, _, text = events[0]["image"]["dataURL"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as preview:
        assert (preview.size, preview.format) == ((16, 8), "JPEG")
    assert engine.asked == [
        ("noisy", BaseModelType.StableDiffusion1),
        ("clean", BaseModelType.Flux),
        ("noisy", BaseModelType.Flux2),
        ("noisy", BaseModelType.Wan),
    ]
    assert {data["device"] for data in events} == {None}


async def test_a_step_of_a_canceled_item_raises(ask: Ask, canceled: threading.Event) -> None:
    def step(context: Context) -> list[bool]:
        before = context.util.is_canceled()
        canceled.set()
        with pytest.raises(CanceledException):
            context.util.sd_step_callback(state(1), BaseModelType.StableDiffusion1)
        return [before, context.util.is_canceled()]

    assert await ask(step) == [False, True]


async def test_progress_with_a_custom_image(ask: Ask, channel: Any) -> None:
    def tell(context: Context) -> None:
        context.util.signal_progress("Half", 0.5, Image.new("RGBA", (6, 4)))
        context.util.signal_progress("Who knows", image=Image.new("L", (6, 4)), image_size=(60, 40))

    await ask(tell)
    half, unknown = [data for name, data in channel.sent if name == "invocation_progress"]
    assert (half["percentage"], half["image"]["width"], half["image"]["height"]) == (0.5, 6, 4)
    assert (unknown["percentage"], unknown["image"]["width"], unknown["image"]["height"]) == (None, 60, 40)


@pytest.mark.parametrize(
    ("step", "order", "total", "expected"),
    [(0, 1, 4, 0), (3, 1, 4, 0.75), (3, 2, 8, 0.25), (7, 2, 9, 0.75), (1, 1, 0, 0)],
)
def test_progress_fraction_of_the_denoising_loop(step: int, order: int, total: int, expected: float) -> None:
    assert progress_fraction(state(step, order=order, total_steps=total)) == expected


async def test_context_exposes_the_queue_item(ask: Ask, resources: Resources) -> None:
    def look(context: Context) -> list[Any]:
        item = context.data.queue_item
        return [
            context._data is context.data,
            context.data.source_invocation_id,
            context.data.invocation.value,
            item.item_id,
            item.session_id == item.session.id,
            list(item.session.graph.nodes),
            item.workflow,
            context.config.get().limits is resources.settings.limits,
        ]

    expected = [True, "ask", 5, 1, True, ["ask"], {"name": "w"}, True]
    assert await ask(look, {"workflow": '{"name":"w"}'}, value=5) == expected


async def test_nodes_can_log(ask: Ask, logged: list[logging.LogRecord]) -> None:
    def log(context: Context) -> None:
        for level in ("debug", "info", "warning", "error"):
            getattr(context.logger, level)(f"{level} 100%")

    await ask(log)
    records = [record for record in logged if record.name == "invokeclone.node"]
    assert {record.getMessage() for record in records} == {
        f"{level} 100%" for level in ("debug", "info", "warning", "error")
    }
    assert {(vars(entry)["action"], vars(entry)["item_id"], vars(entry)["device"]) for entry in records} == {
        ("run_node", 1, "cpu")
    }


async def test_style_presets_readable_by_the_item_owner(ask: Ask, resources: Resources) -> None:
    texts = {"name": "n", "positive_prompt": "a photo of {prompt}", "negative_prompt": "noise"}
    async with resources.database.write() as connection:
        await connection.execute(
            insert(users).values(user_id="alice", email="a@x.y", created_at="2026", updated_at="2026")
        )
        for preset_id, is_public in (("mine", False), ("shown", True)):
            form = PresetForm(**texts, type=PresetType.User, is_public=is_public)
            await presets_store.create(connection, form, "system", preset_id=preset_id, image=None)
        prompt = SystemPromptWithoutId(name="n", content="be short")
        hidden = await system_prompts.create(connection, prompt, SYSTEM, is_public=False)
        public = await system_prompts.create(connection, prompt, SYSTEM, is_public=True)

    def read(context: Context) -> tuple[str, str, str]:
        preset = context.presets.style_preset("shown")
        return preset.positive_prompt, preset.negative_prompt, context.presets.system_prompt(public.id)

    for item in (None, {"user_id": "alice"}):
        assert await ask(read, item) == ("a photo of {prompt}", "noise", "be short")
    assert (await ask(lambda context: context.presets.style_preset("mine"))).negative_prompt == "noise"
    alice = {"user_id": "alice"}
    await error_text(ask, lambda context: context.presets.style_preset("mine"), Forbidden, alice)
    await error_text(ask, lambda context: context.presets.system_prompt(hidden.id), Forbidden, alice)
    await error_text(ask, lambda context: context.presets.style_preset("none"), NotFound)
    await error_text(ask, lambda context: context.presets.system_prompt("none"), NotFound)

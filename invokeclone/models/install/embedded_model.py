"""Registration of the embedded model, which ships with the package, and update of its record when its files change."""

import json
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from invokeclone.graph.vocabulary.taxonomy import ModelSourceType
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import DuplicateModelException, UnknownModelException
from invokeclone.models.files.hashing import hash_model
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.install.registration import Files, RegistrationRequest, register
from invokeclone.models.records import placement, store
from invokeclone.models.records.guard import Guard
from invokeclone.tables import app_state

_log = log.get("models")

EMBEDDED = Path(__file__).parents[2] / "families" / "stable_diffusion" / "embedded"
"""Folder of the embedded model (`model/`) and of the fields of its record (`defaults.json`)."""

EMBEDDED_KEY = str(uuid.uuid5(uuid.NAMESPACE_URL, "invokeclone:embedded"))
"""Key of the embedded model, the same in every installation, so that graphs with it can be shared."""

_REGISTERED_KEY = "embedded_model_registered"


async def register_embedded(resources: Resources, folder: Path = EMBEDDED) -> ModelConfig | None:
    """Register the embedded model once per database, or update its record; return the record if there is one.

    A deleted record is not added again. If the package has moved or contains another version of the model, the record
    is updated. Missing or damaged files are only logged.
    """
    files = folder / "model"
    if not await in_thread(files.is_dir):
        _log.info("there is no embedded model at %s", files)
        return None
    async with resources.database.read() as connection:
        registered = await connection.scalar(select(app_state.c.value).where(app_state.c.key == _REGISTERED_KEY))
    if registered is not None:
        return await _update_record(resources, files)
    defaults: dict[str, Any] = json.loads(await in_thread((folder / "defaults.json").read_text, "utf-8"))
    request = RegistrationRequest(
        path=files,
        source=files.as_posix(),
        source_type=ModelSourceType.Path,
        overrides={**defaults, "key": EMBEDDED_KEY},
        files=Files.STAY,
    )
    config = None
    try:
        config = await register(resources, Guard(), request)
    except DuplicateModelException as error:
        _log.info("the embedded model is not registered again: %s", error)
    except (InvokeCloneError, OSError) as error:
        _log.warning("the embedded model cannot be registered: %s", error)
        return None
    async with resources.database.write() as connection:
        await connection.execute(insert(app_state).values(key=_REGISTERED_KEY, value="true").on_conflict_do_nothing())
    return config


async def _update_record(resources: Resources, files: Path) -> ModelConfig | None:
    """Update path, hash and size of the embedded model's record from its files; return None if it was deleted."""
    try:
        async with resources.database.read() as connection:
            config = await store.get(connection, EMBEDDED_KEY)
    except UnknownModelException:
        return None
    model = ModelFiles(files)
    algorithm = config.hash.partition(":")[0]
    current_hash = await in_thread(hash_model, model, algorithm) if algorithm != "random" else config.hash
    record_path = placement.to_record_path(resources.settings.models_path, model.path)
    changes = {"path": record_path, "hash": current_hash, "file_size": await in_thread(lambda: model.size)}
    current = config.model_copy(update=changes)
    if current != config:
        async with resources.database.write() as connection:
            await store.update(connection, current)
    return current

"""Routes under /api/v2/models."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response, UploadFile
from fastapi.responses import FileResponse

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.requests import Needs, NeedsWorkers, Reads
from invokeclone.models import conversion
from invokeclone.models.identify.union import AnyModelConfig
from invokeclone.models.install import scan
from invokeclone.models.install.api import NeedsInstaller
from invokeclone.models.install.api import router as installs
from invokeclone.models.records import caches, changes, model_images, starters, store
from invokeclone.models.records.guard import Guard
from invokeclone.models.records.schemas import (
    BulkDeleteModelsRequest,
    BulkDeleteModelsResponse,
    BulkReidentifyModelsRequest,
    BulkReidentifyModelsResponse,
    CacheStats,
    DeleteOrphanedModelsRequest,
    DeleteOrphanedModelsResponse,
    FoundModel,
    ModelRecordChanges,
    ModelRecordOrderBy,
    ModelsList,
    OrphanedModelInfo,
    SQLiteDirection,
)
from invokeclone.users import current


def _guard(installer: NeedsInstaller) -> Guard:
    return installer.guard


NeedsGuard = Annotated[Guard, Depends(_guard)]

router = APIRouter(prefix="/api/v2/models", tags=["model_manager"])
admin = APIRouter(dependencies=[Depends(current.admin)])
USERS = [Depends(current.current_user)]

_NULL: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {}}}}}


@router.get("/", dependencies=USERS, response_model=ModelsList)
async def list_model_records(
    needs: Needs,
    base_models: Annotated[list[BaseModelType] | None, Query(description="Only these bases")] = None,
    model_type: Annotated[ModelType | None, Query(description="Only this type")] = None,
    model_name: Annotated[str | None, Query(description="Only this exact name")] = None,
    model_format: Annotated[ModelFormat | None, Query(description="Only this format")] = None,
    order_by: Annotated[ModelRecordOrderBy, Query(description="Sort key")] = ModelRecordOrderBy.Name,
    direction: Annotated[SQLiteDirection, Query(description="Sort direction")] = SQLiteDirection.Ascending,
) -> Response:
    """List models."""
    records = await store.search_records(
        needs.database,
        name=model_name,
        bases=base_models,
        type=model_type,
        format=model_format,
        order_by=order_by,
        direction=direction,
    )
    configs = await in_thread(model_images.with_cover_images, needs.settings, [record.config for record in records])
    texts = [
        record.json if record.config is config else config.model_dump_json().encode()
        for record, config in zip(records, configs, strict=True)
    ]
    return Response(b'{"models":[%b]}' % b",".join(texts), media_type="application/json")


@router.get("/missing", dependencies=USERS)
async def list_missing_models(needs: Needs) -> ModelsList:
    """List the models whose files are missing."""
    return ModelsList(models=await changes.list_missing(needs))


@router.get("/get_by_attrs", dependencies=USERS)
async def get_model_records_by_attrs(
    needs: Needs,
    source: Reads,
    name: Annotated[str, Query(description="Name")],
    type: Annotated[ModelType, Query(description="Type")],  # noqa: A002  (name in the API)
    base: Annotated[BaseModelType, Query(description="Base")],
) -> AnyModelConfig:
    """Get the model with a name, type and base."""
    config = await store.find_first(source, name=name, type=type, bases=[base])
    return await in_thread(model_images.with_cover_image, needs.settings, config)


@router.get("/get_by_hash", dependencies=USERS)
async def get_model_records_by_hash(
    needs: Needs,
    source: Reads,
    hash: Annotated[str, Query(description="Hash")],  # noqa: A002  (name in the API)
) -> AnyModelConfig:
    """Get the model with a hash."""
    config = await store.find_first(source, hash=hash)
    return await in_thread(model_images.with_cover_image, needs.settings, config)


@router.get("/i/{key}", dependencies=USERS)
async def get_model_record(needs: Needs, source: Reads, key: str) -> AnyModelConfig:
    """Get a model."""
    return await in_thread(model_images.with_cover_image, needs.settings, await store.get(source, key))


@admin.patch("/i/{key}")
async def update_model_record(
    needs: Needs, guard: NeedsGuard, key: str, record_changes: ModelRecordChanges
) -> AnyModelConfig:
    """Change fields of a model; absent fields stay unchanged."""
    return await in_thread(
        model_images.with_cover_image, needs.settings, await changes.change(needs, guard, key, record_changes)
    )


@admin.delete("/i/{key}", status_code=204)
async def delete_model(needs: Needs, guard: NeedsGuard, key: str) -> None:
    """Delete a model, and its files if they are inside the models folder."""
    await changes.remove(needs, guard, key)


@admin.post("/i/{key}/reidentify")
async def reidentify_model(needs: Needs, guard: NeedsGuard, key: str) -> AnyModelConfig:
    """Identify a model again and update its record."""
    return await in_thread(model_images.with_cover_image, needs.settings, await changes.reidentify(needs, guard, key))


@admin.post("/i/bulk_delete")
async def bulk_delete_models(
    needs: Needs, guard: NeedsGuard, request: BulkDeleteModelsRequest
) -> BulkDeleteModelsResponse:
    """Delete several models."""
    deleted, failed = await changes.for_each(request.keys, lambda key: changes.remove(needs, guard, key))
    return BulkDeleteModelsResponse(deleted=deleted, failed=failed)


@admin.post("/i/bulk_reidentify")
async def bulk_reidentify_models(
    needs: Needs, guard: NeedsGuard, request: BulkReidentifyModelsRequest
) -> BulkReidentifyModelsResponse:
    """Identify several models again and update their records."""
    succeeded, failed = await changes.for_each(request.keys, lambda key: changes.reidentify(needs, guard, key))
    return BulkReidentifyModelsResponse(succeeded=succeeded, failed=failed)


@router.get("/i/{key}/image", response_class=FileResponse, responses=_NULL)
async def get_model_image(needs: Needs, key: str) -> FileResponse:
    """Get the image of a model."""
    path = await in_thread(model_images.find, needs.settings, key)
    return FileResponse(
        path,
        media_type="image/png",
        filename=f"{key}.png",
        content_disposition_type="inline",
        headers={"Cache-Control": "max-age=31536000"},
    )


@admin.patch("/i/{key}/image", responses=_NULL)
async def update_model_image(needs: Needs, guard: NeedsGuard, key: str, image: UploadFile) -> None:
    """Set the image of a model."""
    await changes.set_image(needs, guard, key, await image.read())


@admin.delete("/i/{key}/image", status_code=204)
async def delete_model_image(needs: Needs, guard: NeedsGuard, key: str) -> None:
    """Remove the image of a model."""
    await changes.remove_image(needs, guard, key)


@admin.get("/scan_folder")
async def scan_for_models(
    needs: Needs,
    scan_path: Annotated[str, Query(description="Folder on the server")] = "",
) -> list[FoundModel]:
    """Search a folder for models."""
    return await scan.scan(needs, scan_path)


@admin.put("/convert/{key}")
async def convert_model(needs: Needs, guard: NeedsGuard, workers: NeedsWorkers, key: str) -> AnyModelConfig:
    """Convert a single-file Stable Diffusion model to a diffusers folder; the model gets a new key."""
    config = await conversion.convert(needs, guard, workers, key)
    return await in_thread(model_images.with_cover_image, needs.settings, config)


@admin.get("/starter_models")
async def get_starter_models(needs: Needs) -> starters.StarterModelResponse:
    """List the starter models and whether they are installed."""
    async with needs.database.read() as connection:
        installed = await store.list_installed(connection)
    return await in_thread(starters.list_starters, installed)


@admin.get("/stats")
async def get_stats(workers: NeedsWorkers) -> CacheStats | None:
    """Get the statistics of the model caches; null if no worker has any."""
    return await caches.stats(workers)


@admin.post("/empty_model_cache")
async def empty_model_cache(workers: NeedsWorkers) -> None:
    """Drop the models that are in memory but not in use."""
    await caches.empty_caches(workers)


@admin.get("/sync/orphaned")
async def get_orphaned_models(needs: Needs, installer: NeedsInstaller) -> list[OrphanedModelInfo]:
    """List the entries of the models folder that belong to no model."""
    return await scan.find_orphans(needs, installer)


@admin.delete("/sync/orphaned")
async def delete_orphaned_models(
    needs: Needs, installer: NeedsInstaller, request: DeleteOrphanedModelsRequest
) -> DeleteOrphanedModelsResponse:
    """Remove orphaned entries of the models folder; entries that belong to a model are refused."""
    return await scan.remove_orphans(needs, installer, request.paths)


router.include_router(admin)
router.include_router(installs)

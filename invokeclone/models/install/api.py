"""Routes of installations, Hugging Face repositories and the Hugging Face login; all for admins."""

from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import AnyHttpUrl

from invokeclone.kit.requests import service
from invokeclone.models.install import install_link
from invokeclone.models.install.jobs import ModelInstallJob
from invokeclone.models.install.service import Installer
from invokeclone.models.records.schemas import HFTokenStatus, HuggingFaceModels, ModelRecordChanges
from invokeclone.users.current import admin

NeedsInstaller = Annotated[Installer, Depends(service(Installer))]

router = APIRouter(dependencies=[Depends(admin)])

_NULL: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {}}}}}


@router.post("/install", status_code=201)
async def install_model(
    installer: NeedsInstaller,
    source: Annotated[str, Query(description="Path, repository or URL")],
    config: Annotated[ModelRecordChanges, Body(description="Fields of the record to set instead of detecting them")],
    inplace: Annotated[bool | None, Query(description="Whether to leave local files in their location")] = False,
    access_token: Annotated[str | None, Query(description="Access token for a URL or repository")] = None,
    move: Annotated[
        bool, Query(description="Whether to remove local files once they are in the models folder")
    ] = False,
) -> ModelInstallJob:
    """Start to install a model from a path, from Hugging Face (`owner/name[:variant[:subfolder]]`) or from a URL.

    Local files are copied into the models folder (cloned or hard-linked where possible) and stay where they are, unless
    `move` is true; with `inplace`, or if they are in the models folder already, the record has their path.
    """
    return await installer.add(source, config, inplace=bool(inplace), move=move, access_token=access_token)


@router.get("/install")
async def list_model_installs(installer: NeedsInstaller) -> list[ModelInstallJob]:
    """List the install jobs."""
    return installer.jobs()


@router.delete("/install", status_code=204, responses=_NULL)
async def prune_model_install_jobs(installer: NeedsInstaller) -> Response:
    """Remove the install jobs that have ended from the list."""
    await installer.prune()
    return Response(status_code=204)


@router.get("/install/huggingface", status_code=201, response_class=HTMLResponse)
async def install_hugging_face_model(
    request: Request,
    installer: NeedsInstaller,
    source: Annotated[str, Query(description="Hugging Face repository")],
) -> HTMLResponse:
    """Start to install a model from Hugging Face and return a page with the result; for links on Hugging Face."""
    page = await install_link.accept(installer, source, request.headers)
    title, text = escape(page.title), escape(page.text)
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<body style='font-family: system-ui, sans-serif; max-width: 40em; margin: 4em auto'>"
        f"<h1>{title}</h1><p>{text}</p></body></html>",
        status_code=page.status,
    )


@router.get("/install/{id}")
async def get_model_install_job(installer: NeedsInstaller, id: int) -> ModelInstallJob:  # noqa: A002  (name in the API)
    """Get an install job."""
    return installer.get(id)


@router.delete("/install/{id}", status_code=201)
async def cancel_model_install_job(installer: NeedsInstaller, id: int) -> None:  # noqa: A002  (name in the API)
    """Cancel an install job; has no effect on one that has ended."""
    await installer.cancel(id)


@router.post("/install/{id}/pause", status_code=201)
async def pause_model_install_job(installer: NeedsInstaller, id: int) -> ModelInstallJob:  # noqa: A002
    """Pause an install job that waits or downloads."""
    return await installer.pause(id)


@router.post("/install/{id}/resume", status_code=201)
async def resume_model_install_job(installer: NeedsInstaller, id: int) -> ModelInstallJob:  # noqa: A002
    """Resume a paused install job."""
    return await installer.resume(id)


@router.post("/install/{id}/restart_failed", status_code=201)
async def restart_failed_model_install_job(installer: NeedsInstaller, id: int) -> ModelInstallJob:  # noqa: A002
    """Retry a failed install job with the files that it has downloaded."""
    return await installer.restart_failed(id)


@router.post("/install/{id}/restart_file", status_code=201)
async def restart_model_install_file(
    installer: NeedsInstaller,
    id: int,  # noqa: A002  (name in the API)
    file_source: Annotated[AnyHttpUrl, Body(description="URL of the file")],
) -> ModelInstallJob:
    """Restart one download of an install job from the beginning."""
    return await installer.restart_file(id, str(file_source))


@router.get("/hugging_face")
async def get_hugging_face_models(
    installer: NeedsInstaller,
    hugging_face_repo: Annotated[str, Query(description="Hugging Face repository")] = "",
) -> HuggingFaceModels:
    """Get the single-file models of a Hugging Face repository, and whether it is a diffusers pipeline."""
    metadata = await installer.hub.metadata(hugging_face_repo)
    return HuggingFaceModels(urls=metadata.ckpt_urls, is_diffusers=metadata.is_diffusers)


@router.get("/hf_login")
async def get_hf_login_status(installer: NeedsInstaller) -> HFTokenStatus:
    """Get the status of the Hugging Face token; `unknown` if Hugging Face cannot be reached."""
    return await installer.hub.status()


@router.post("/hf_login")
async def do_hf_login(
    installer: NeedsInstaller, token: Annotated[str, Body(embed=True, description="Access token")]
) -> HFTokenStatus:
    """Store a Hugging Face token if it is valid."""
    return await installer.hub.login(token)


@router.delete("/hf_login")
async def reset_hf_token(installer: NeedsInstaller) -> HFTokenStatus:
    """Remove the Hugging Face token and get the status of the remaining one."""
    return await installer.hub.logout()

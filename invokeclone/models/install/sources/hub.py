"""Client of the Hugging Face Hub: token, login, repository metadata.

The endpoint is `HF_ENDPOINT`, as for the huggingface_hub library. The library validates names and builds URLs; requests
are sent by WebClient (docs/decisions/0009).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import AnyHttpUrl

from invokeclone.downloads.errors import AccessDenied, AddressRefused, DownloadFailed
from invokeclone.downloads.web import WebClient
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import BadRequest
from invokeclone.kit.files.storage import remove_file, write_file
from invokeclone.kit.process.offload import in_thread
from invokeclone.models.files.model_files import MODEL_FILES
from invokeclone.models.install.sources.metadata import HuggingFaceMetadata, RemoteModelFile
from invokeclone.models.records.schemas import HFTokenStatus

TOKEN_FILE = "hf_token"  # noqa: S105  (the file's name)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class NotARepository(BadRequest):
    """The text is not a repository name `owner/name`."""


class Hub:
    """Client of the Hugging Face Hub. Stateless: instances may be kept or created per request."""

    def __init__(self, settings: Settings, web: WebClient, environment: Mapping[str, str] | None = None) -> None:
        """Send requests through `web`; `environment` gives the endpoint and the location of the library's token."""
        self._environment = os.environ if environment is None else environment
        self._web = web
        self._file = settings.root / TOKEN_FILE
        self.endpoint = (self._environment.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def token(self) -> str | None:
        """Return the token to use: that of `login`, else that of the environment or the library. Blocking."""
        stored_token = _read(self._file)
        environment = self._environment.get("HF_TOKEN") or self._environment.get("HUGGING_FACE_HUB_TOKEN")
        return stored_token or environment or _read(self._library_file())

    async def token_for(self, url: str) -> str | None:
        """Return the token for a URL; None unless the URL is on the hub."""
        if _origin(url) != _origin(self.endpoint):
            return None
        return await in_thread(self.token)

    async def status(self) -> HFTokenStatus:
        """Return the status of the token in use."""
        return await self._check(await in_thread(self.token))

    async def login(self, token: str) -> HFTokenStatus:
        """Store a token if it is valid, readable only by the current OS user; return its status."""
        status = await self._check(token.strip())
        if status is HFTokenStatus.VALID:
            await in_thread(write_file, self._file, token.strip().encode(), 0o600)
        return status

    async def logout(self) -> HFTokenStatus:
        """Remove the token of `login`; return the status of the token in use now."""
        await in_thread(remove_file, self._file)
        return await self.status()

    async def metadata(self, repo: str, token: str | None = None) -> HuggingFaceMetadata:
        """Return the metadata of the latest revision. Raises NotARepository, AddressRefused, DownloadFailed."""
        if not await is_repository(repo):
            raise NotARepository(f"not a repository name (owner/name): {repo!r}")
        token = token or await in_thread(self.token)
        try:
            answer = await self._web.get_json(f"{self.endpoint}/api/models/{repo}?blobs=true", token=token)
        except AccessDenied as error:
            raise AccessDenied(f"{repo} does not exist, or requires a login with access to it") from error
        return await in_thread(self._parse_metadata, repo, answer)

    def file_url(self, url: str) -> str:
        """Return the download URL of the file shown on a hub page (`/blob/`); other URLs are returned unchanged."""
        if _origin(url) != _origin(self.endpoint):
            return url
        return re.sub(r"^(https?://[^/]+/[^/]+/[^/?#]+)/blob/", r"\1/resolve/", url)

    def _parse_metadata(self, repo: str, answer: Any) -> HuggingFaceMetadata:
        siblings = answer.get("siblings") if isinstance(answer, dict) else None
        if not isinstance(siblings, list):
            raise DownloadFailed(f"the response of {self.endpoint} does not list the files of {repo}")
        revision = str(answer.get("sha") or "main")
        files = [self._file_of(repo, revision, entry) for entry in siblings if isinstance(entry, dict)]
        folders = any(file.path.as_posix() == "model_index.json" for file in files)
        return HuggingFaceMetadata(
            name=repo.partition("/")[2],
            id=repo,
            files=files,
            api_response=orjson.dumps(answer).decode(),
            is_diffusers=folders,
            ckpt_urls=_checkpoints(files, only_top=folders),
        )

    def _file_of(self, repo: str, revision: str, entry: dict[str, Any]) -> RemoteModelFile:
        from huggingface_hub import hf_hub_url

        lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
        path, size, sha256 = str(entry.get("rfilename") or ""), entry.get("size"), str((lfs or {}).get("sha256") or "")
        return RemoteModelFile(
            url=AnyHttpUrl(hf_hub_url(repo, path, revision=revision, endpoint=self.endpoint)),
            path=Path(path),
            size=size if isinstance(size, int) and size >= 0 else None,
            sha256=sha256 if _SHA256.match(sha256) else None,
        )

    def _library_file(self) -> Path:
        environment = self._environment
        cache = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
        folder = Path(environment.get("HF_HOME") or cache / "huggingface")
        return Path(environment.get("HF_TOKEN_PATH") or folder / "token").expanduser()

    async def _check(self, token: str | None) -> HFTokenStatus:
        if not token:
            return HFTokenStatus.INVALID
        try:
            await self._web.get_json(f"{self.endpoint}/api/whoami-v2", token=token, tries=1)
        except AccessDenied:
            return HFTokenStatus.INVALID
        except (DownloadFailed, AddressRefused):
            return HFTokenStatus.UNKNOWN
        return HFTokenStatus.VALID


async def is_repository(text: str) -> bool:
    """Return whether the text is a valid repository name `owner/name`."""
    return "/" in text and await in_thread(_is_valid, text)


def _is_valid(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _checkpoints(files: list[RemoteModelFile], *, only_top: bool) -> list[AnyHttpUrl] | None:
    """Return the URLs of the single-file models; with `only_top`, only those at the top level."""
    urls = [
        file.url
        for file in files
        if file.path.suffix.lower() in MODEL_FILES and not (only_top and len(file.path.parts) > 1)
    ]
    return urls or None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None

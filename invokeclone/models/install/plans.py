"""Download plans: the files of a remote source to download, and their paths in the download folder."""

from pathlib import Path

from pydantic import AnyHttpUrl, BaseModel

from invokeclone.downloads import names
from invokeclone.graph.vocabulary.taxonomy import ModelRepoVariant
from invokeclone.kit.config.settings import Settings
from invokeclone.models.install.jobs import HFModelSource, URLModelSource
from invokeclone.models.install.sources.hub import Hub
from invokeclone.models.install.sources.metadata import AnyMetadata, RemoteModelFile
from invokeclone.models.install.sources.selection import select

RemoteSource = HFModelSource | URLModelSource


class DownloadPlan(BaseModel):
    """The files to download. Paths are relative to the download folder."""

    files: list[RemoteModelFile]
    root: Path | None = None
    """The file or folder of the model; None for a single file whose name the server determines."""
    metadata: AnyMetadata | None = None

    @property
    def size(self) -> int:
        """Total size in bytes of the files whose size is known."""
        return sum(file.size or 0 for file in self.files)


async def make_plan(source: RemoteSource, hub: Hub, settings: Settings) -> DownloadPlan:
    """Return the plan for a source. Raises DownloadFailed and its subclasses, NotARepository, AddressRefused."""
    if isinstance(source, URLModelSource):
        url = AnyHttpUrl(hub.file_url(str(source.url)))
        return DownloadPlan(files=[RemoteModelFile(url=url, path=Path(), size=None)])
    metadata = await hub.metadata(source.repo_id, source.access_token)
    variant = default_variant(settings) if source.variant is None else source.variant
    selected = set(select([file.path for file in metadata.files], variant, source.subfolder))
    files = [file for file in metadata.files if file.path in selected]
    for file in files:
        names.safe_path(file.path.as_posix())
    single = len(files) == 1 and (source.subfolder == files[0].path or len(files[0].path.parts) == 1)
    root = Path(names.safe_name(files[0].path.name if single else _folder_name(source)))
    planned_files = [
        file.model_copy(update={"path": root if single else root / _path_in_model(source, file.path)}) for file in files
    ]
    return DownloadPlan(files=planned_files, root=root, metadata=metadata)


def default_variant(settings: Settings) -> ModelRepoVariant:
    """Return the default variant: fp16, unless the settings or a CPU device imply another precision."""
    full = settings.precision in {"float32", "bfloat16"} or (settings.precision == "auto" and settings.device == "cpu")
    return ModelRepoVariant.Default if full else ModelRepoVariant.FP16


def _folder_name(source: HFModelSource) -> str:
    """Return the folder name of the model: the name of the repository and of its subfolder."""
    part = [] if source.subfolder is None else [source.subfolder.as_posix().replace("/", "_")]
    return "_".join([source.repo_id.partition("/")[2], *part])


def _path_in_model(source: HFModelSource, path: Path) -> Path:
    """Return the path of a file in the model's folder; a requested subfolder becomes the model's folder."""
    return path.relative_to(source.subfolder) if source.subfolder and path.is_relative_to(source.subfolder) else path

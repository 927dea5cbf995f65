"""What the custom nodes' routes ask and answer."""

from pydantic import BaseModel, Field


class NodePackInfo(BaseModel):
    """An installed pack."""

    name: str = Field(description="The pack's name, that of its folder.")
    path: str = Field(description="Its folder.")
    node_count: int = Field(description="How many node types it brings; 0 also when it can't be imported.")
    node_types: list[str] = Field(description="The node types.")


class NodePackListResponse(BaseModel):
    """Every installed pack."""

    node_packs: list[NodePackInfo] = Field(description="The packs, by name.")
    custom_nodes_path: str = Field(description="The folder they are in.")


class InstallNodePackRequest(BaseModel):
    """Which pack to install."""

    source: str = Field(description="A git address, or the full path of a folder.")


class InstallNodePackResponse(BaseModel):
    """What came of installing a pack."""

    name: str = Field(description="The pack's name.")
    success: bool = Field(description="Whether it is installed.")
    message: str = Field(description="What came of it, in words.")
    workflows_imported: int = Field(default=0, description="How many of its workflows are in the library now.")
    requires_dependencies: bool = Field(default=False, description="Whether it names libraries that it needs.")
    dependency_file: str | None = Field(default=None, description="The file that names them; nothing installs them.")


class UninstallNodePackResponse(BaseModel):
    """What came of removing a pack."""

    name: str = Field(description="The pack's name.")
    success: bool = Field(description="Whether it is gone.")
    message: str = Field(description="What came of it, in words.")

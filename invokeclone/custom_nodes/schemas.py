"""Request and response schemas of the custom node routes."""

from pydantic import BaseModel, Field


class NodePackInfo(BaseModel):
    """An installed pack."""

    name: str = Field(description="Name of the pack and of its folder.")
    path: str = Field(description="Path of the pack's folder.")
    node_count: int = Field(description="Number of node types; 0 if the pack cannot be imported.")
    node_types: list[str] = Field(description="The node types.")


class NodePackListResponse(BaseModel):
    """All installed packs."""

    node_packs: list[NodePackInfo] = Field(description="The packs, sorted by name.")
    custom_nodes_path: str = Field(description="The folder that contains the packs.")


class InstallNodePackRequest(BaseModel):
    """The pack to install."""

    source: str = Field(description="A git URL, or the absolute path of a folder.")


class InstallNodePackResponse(BaseModel):
    """Result of installing a pack."""

    name: str = Field(description="Name of the pack.")
    success: bool = Field(description="Whether the pack was installed.")
    message: str = Field(description="Message for the user.")
    workflows_imported: int = Field(default=0, description="Number of the pack's workflows added to the library.")
    requires_dependencies: bool = Field(default=False, description="Whether the pack declares dependencies.")
    dependency_file: str | None = Field(
        default=None, description="File that declares the dependencies, which are not installed automatically."
    )


class UninstallNodePackResponse(BaseModel):
    """Result of removing a pack."""

    name: str = Field(description="Name of the pack.")
    success: bool = Field(description="Whether the pack was removed.")
    message: str = Field(description="Message for the user.")

"""Hints for node editors about nodes and their fields. Only `Input` affects validation and execution."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Classification,
    ClipVariantType,
    ModelFormat,
    ModelType,
    ModelVariantType,
)


class FieldKind(StrEnum):
    """The role of a field of a node."""

    Input = "input"
    Output = "output"
    Internal = "internal"
    NodeAttribute = "node_attribute"


class Input(StrEnum):
    """Source of an input's value: an edge, the node itself, or either."""

    Connection = "connection"
    Direct = "direct"
    Any = "any"


class UIComponent(StrEnum):
    """The widget that an editor shows for an input."""

    None_ = "none"
    Textarea = "textarea"
    Slider = "slider"
    VideoFrameIndex = "video-frame-index"


class UIType(StrEnum):
    """Overrides for the type that an editor infers from the schema; DEPRECATED ones only keep old packs importable."""

    Scheduler = "SchedulerField"
    Any = "AnyField"
    SavedWorkflow = "SavedWorkflowField"
    _Collection = "CollectionField"
    _CollectionItem = "CollectionItemField"
    _IsIntermediate = "IsIntermediate"
    Boolean = "DEPRECATED_Boolean"
    Color = "DEPRECATED_Color"
    Conditioning = "DEPRECATED_Conditioning"
    Control = "DEPRECATED_Control"
    Float = "DEPRECATED_Float"
    Image = "DEPRECATED_Image"
    Integer = "DEPRECATED_Integer"
    Latents = "DEPRECATED_Latents"
    String = "DEPRECATED_String"
    BooleanCollection = "DEPRECATED_BooleanCollection"
    ColorCollection = "DEPRECATED_ColorCollection"
    ConditioningCollection = "DEPRECATED_ConditioningCollection"
    ControlCollection = "DEPRECATED_ControlCollection"
    FloatCollection = "DEPRECATED_FloatCollection"
    ImageCollection = "DEPRECATED_ImageCollection"
    IntegerCollection = "DEPRECATED_IntegerCollection"
    LatentsCollection = "DEPRECATED_LatentsCollection"
    StringCollection = "DEPRECATED_StringCollection"
    BooleanPolymorphic = "DEPRECATED_BooleanPolymorphic"
    ColorPolymorphic = "DEPRECATED_ColorPolymorphic"
    ConditioningPolymorphic = "DEPRECATED_ConditioningPolymorphic"
    ControlPolymorphic = "DEPRECATED_ControlPolymorphic"
    FloatPolymorphic = "DEPRECATED_FloatPolymorphic"
    ImagePolymorphic = "DEPRECATED_ImagePolymorphic"
    IntegerPolymorphic = "DEPRECATED_IntegerPolymorphic"
    LatentsPolymorphic = "DEPRECATED_LatentsPolymorphic"
    StringPolymorphic = "DEPRECATED_StringPolymorphic"
    UNet = "DEPRECATED_UNet"
    Vae = "DEPRECATED_Vae"
    CLIP = "DEPRECATED_CLIP"
    Collection = "DEPRECATED_Collection"
    CollectionItem = "DEPRECATED_CollectionItem"
    Enum = "DEPRECATED_Enum"
    WorkflowField = "DEPRECATED_WorkflowField"
    BoardField = "DEPRECATED_BoardField"
    MetadataItem = "DEPRECATED_MetadataItem"
    MetadataItemCollection = "DEPRECATED_MetadataItemCollection"
    MetadataItemPolymorphic = "DEPRECATED_MetadataItemPolymorphic"
    MetadataDict = "DEPRECATED_MetadataDict"
    MainModel = "DEPRECATED_MainModelField"
    CogView4MainModel = "DEPRECATED_CogView4MainModelField"
    FluxMainModel = "DEPRECATED_FluxMainModelField"
    SD3MainModel = "DEPRECATED_SD3MainModelField"
    SDXLMainModel = "DEPRECATED_SDXLMainModelField"
    SDXLRefinerModel = "DEPRECATED_SDXLRefinerModelField"
    ONNXModel = "DEPRECATED_ONNXModelField"
    VAEModel = "DEPRECATED_VAEModelField"
    FluxVAEModel = "DEPRECATED_FluxVAEModelField"
    LoRAModel = "DEPRECATED_LoRAModelField"
    ControlNetModel = "DEPRECATED_ControlNetModelField"
    IPAdapterModel = "DEPRECATED_IPAdapterModelField"
    T2IAdapterModel = "DEPRECATED_T2IAdapterModelField"
    T5EncoderModel = "DEPRECATED_T5EncoderModelField"
    CLIPEmbedModel = "DEPRECATED_CLIPEmbedModelField"
    CLIPLEmbedModel = "DEPRECATED_CLIPLEmbedModelField"
    CLIPGEmbedModel = "DEPRECATED_CLIPGEmbedModelField"
    SpandrelImageToImageModel = "DEPRECATED_SpandrelImageToImageModelField"
    ControlLoRAModel = "DEPRECATED_ControlLoRAModelField"
    SigLipModel = "DEPRECATED_SigLipModelField"
    FluxReduxModel = "DEPRECATED_FluxReduxModelField"
    LLaVAModel = "DEPRECATED_LLaVAModelField"
    Imagen3Model = "DEPRECATED_Imagen3ModelField"
    Imagen4Model = "DEPRECATED_Imagen4ModelField"
    ChatGPT4oModel = "DEPRECATED_ChatGPT4oModelField"
    Gemini2_5Model = "DEPRECATED_Gemini2_5ModelField"
    FluxKontextModel = "DEPRECATED_FluxKontextModelField"
    Veo3Model = "DEPRECATED_Veo3ModelField"
    RunwayModel = "DEPRECATED_RunwayModelField"


class UIConfigBase(BaseModel):
    """Properties of a node class, set by its decorator."""

    model_config = ConfigDict(validate_assignment=True, json_schema_serialization_defaults_required=True)

    tags: list[str] | None = Field(default=None, description="Search terms")
    title: str | None = Field(default=None, description="Name shown in editors")
    category: str | None = Field(default=None, description="Group in editors")
    version: str = Field(description="Semantic version of the node")
    node_pack: str = Field(description="Node pack of the node")
    classification: Classification = Field(default=Classification.Stable, description="Stability of the node")


class InputFieldJSONSchemaExtra(BaseModel):
    """Extra properties of an input field's JSON schema."""

    model_config = ConfigDict(validate_assignment=True, json_schema_serialization_defaults_required=True)

    input: Input
    field_kind: FieldKind
    orig_required: bool = True
    default: Any | None = None
    orig_default: Any | None = None
    ui_hidden: bool = False
    ui_type: UIType | None = None
    ui_component: UIComponent | None = None
    ui_order: int | None = None
    ui_choice_labels: dict[str, str] | None = None
    ui_model_base: list[BaseModelType] | None = None
    ui_model_type: list[ModelType] | None = None
    ui_model_variant: list[ClipVariantType | ModelVariantType] | None = None
    ui_model_format: list[ModelFormat] | None = None
    ui_model_provider_id: list[str] | None = None


class OutputFieldJSONSchemaExtra(BaseModel):
    """Extra properties of an output field's JSON schema."""

    model_config = ConfigDict(validate_assignment=True, json_schema_serialization_defaults_required=True)

    field_kind: FieldKind
    ui_hidden: bool = False
    ui_order: int | None = None
    ui_type: UIType | None = None

"""Alias modules for the names that node packs import from `invokeai`, mapped to classes and functions of this package.

Consists of a table of names and a meta path finder that creates the modules. A target is imported when a pack first
accesses it; names outside of the table raise ImportError.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

TOP = "invokeai"
MODULES = frozenset(
    {
        "invokeai.app.invocations.baseinvocation",
        "invokeai.app.invocations.cogview4_denoise",
        "invokeai.app.invocations.cogview4_model_loader",
        "invokeai.app.invocations.cogview4_text_encoder",
        "invokeai.app.invocations.constants",
        "invokeai.app.invocations.controlnet",
        "invokeai.app.invocations.controlnet_image_processors",
        "invokeai.app.invocations.denoise_latents",
        "invokeai.app.invocations.fields",
        "invokeai.app.invocations.flux_control_lora_loader",
        "invokeai.app.invocations.flux_controlnet",
        "invokeai.app.invocations.flux_denoise",
        "invokeai.app.invocations.flux_fill",
        "invokeai.app.invocations.flux_ip_adapter",
        "invokeai.app.invocations.flux_kontext",
        "invokeai.app.invocations.flux_lora_loader",
        "invokeai.app.invocations.flux_model_loader",
        "invokeai.app.invocations.flux_redux",
        "invokeai.app.invocations.flux_text_encoder",
        "invokeai.app.invocations.flux_vae_decode",
        "invokeai.app.invocations.flux_vae_encode",
        "invokeai.app.invocations.image",
        "invokeai.app.invocations.image_to_latents",
        "invokeai.app.invocations.ip_adapter",
        "invokeai.app.invocations.latent",
        "invokeai.app.invocations.metadata",
        "invokeai.app.invocations.model",
        "invokeai.app.invocations.noise",
        "invokeai.app.invocations.primitives",
        "invokeai.app.invocations.scheduler",
        "invokeai.app.invocations.sd3_denoise",
        "invokeai.app.invocations.sd3_model_loader",
        "invokeai.app.invocations.sd3_text_encoder",
        "invokeai.app.invocations.sdxl",
        "invokeai.app.invocations.t2i_adapter",
        "invokeai.app.models.image",
        "invokeai.app.services.boards.boards_common",
        "invokeai.app.services.config.config_default",
        "invokeai.app.services.image_records.image_records_common",
        "invokeai.app.services.model_records",
        "invokeai.app.services.shared",
        "invokeai.app.services.shared.invocation_context",
        "invokeai.app.services.shared.sqlite.sqlite_common",
        "invokeai.app.services.workflow_records.workflow_records_common",
        "invokeai.app.util.misc",
        "invokeai.backend.model_manager",
        "invokeai.backend.model_manager.config",
        "invokeai.backend.model_manager.configs.factory",
        "invokeai.backend.model_manager.load",
        "invokeai.backend.model_manager.load.load_base",
        "invokeai.backend.model_manager.taxonomy",
        "invokeai.backend.stable_diffusion",
        "invokeai.backend.stable_diffusion.diffusers_pipeline",
        "invokeai.backend.stable_diffusion.diffusion.conditioning_data",
        "invokeai.backend.stable_diffusion.schedulers.schedulers",
        "invokeai.backend.util.devices",
        "invokeai.backend.util.logging",
        "invokeai.invocation_api",
        "invokeai.version",
    }
)
"""Alias modules, without their parent packages. Each has all names of the table, as names moved between versions."""

_NAMES: dict[str, str] = {
    "invokeclone.boards.schemas": """
        BoardDTO
    """,
    "invokeclone.components.autoencoders.fields": """
        VAEField VAEOutput
    """,
    "invokeclone.components.clip.fields": """
        CLIPField CLIPOutput
    """,
    "invokeclone.components.control.fields": """
        ControlField IPAdapterField LoRAMetadataField T2IAdapterField
    """,
    "invokeclone.components.denoisers.fields": """
        TransformerField
    """,
    "invokeclone.components.flux.conditioning": """
        FLUXConditioningInfo
    """,
    "invokeclone.components.flux.fields": """
        FluxConditioningCollectionOutput FluxConditioningField FluxConditioningOutput
        FluxKontextConditioningField
    """,
    "invokeclone.components.text_encoders.fields": """
        GlmEncoderField T5EncoderField
    """,
    "invokeclone.custom_nodes.legacy_names": """
        InvokeAILogger __version__ critical debug error get_config get_random_seed info warning
    """,
    "invokeclone.engine.conditioning": """
        ConditioningFieldData
    """,
    "invokeclone.engine.devices": """
        CPU_DEVICE CUDA_DEVICE MPS_DEVICE TorchDevice choose_precision choose_torch_device
    """,
    "invokeclone.families.cogview4.conditioning": """
        CogView4ConditioningInfo
    """,
    "invokeclone.families.cogview4.fields": """
        CogView4ConditioningField CogView4ConditioningOutput
    """,
    "invokeclone.families.cogview4.nodes": """
        CogView4DenoiseInvocation CogView4ModelLoaderInvocation CogView4TextEncoderInvocation
    """,
    "invokeclone.families.flux.fields": """
        ControlLoRAField FluxControlLoRALoaderOutput FluxControlNetField FluxControlNetOutput
        FluxFillConditioningField FluxFillOutput FluxKontextOutput FluxLoRALoaderOutput FluxModelLoaderOutput
        FluxReduxConditioningField FluxReduxOutput
    """,
    "invokeclone.families.flux.nodes.autoencoder": """
        FluxVaeDecodeInvocation FluxVaeEncodeInvocation
    """,
    "invokeclone.families.flux.nodes.controls": """
        FluxControlNetInvocation FluxIPAdapterInvocation FluxReduxInvocation
    """,
    "invokeclone.families.flux.nodes.denoise": """
        FluxDenoiseInvocation FluxDenoiseLatentsMetaInvocation
    """,
    "invokeclone.families.flux.nodes.images": """
        FluxFillInvocation FluxKontextConcatenateImagesInvocation FluxKontextInvocation
    """,
    "invokeclone.families.flux.nodes.loras": """
        FLUXLoRACollectionLoader FluxControlLoRALoaderInvocation FluxLoRALoaderInvocation
    """,
    "invokeclone.families.flux.nodes.models": """
        FluxModelLoaderInvocation
    """,
    "invokeclone.families.flux.nodes.prompts": """
        FluxTextEncoderInvocation
    """,
    "invokeclone.families.sd3.conditioning": """
        SD3ConditioningInfo
    """,
    "invokeclone.families.sd3.nodes": """
        SD3DenoiseInvocation Sd3ModelLoaderInvocation Sd3ModelLoaderOutput Sd3TextEncoderInvocation
    """,
    "invokeclone.families.stable_diffusion.conditioning": """
        BasicConditioningInfo SDXLConditioningInfo
    """,
    "invokeclone.families.stable_diffusion.fields": """
        LoRALoaderOutput ModelLoaderOutput SDXLLoRALoaderOutput SDXLModelLoaderOutput UNetField
        UNetOutput
    """,
    "invokeclone.families.stable_diffusion.nodes.autoencoder": """
        ImageToLatentsInvocation
    """,
    "invokeclone.families.stable_diffusion.nodes.denoise": """
        DenoiseLatentsInvocation
    """,
    "invokeclone.families.stable_diffusion.nodes.models": """
        MainModelLoaderInvocation
    """,
    "invokeclone.graph.context": """
        InvocationContext LoadedModel PipelineIntermediateState
    """,
    "invokeclone.graph.vocabulary.descriptions": """
        FieldDescriptions
    """,
    "invokeclone.graph.vocabulary.fields": """
        BoardField BoundingBoxField ColorField ConditioningField DenoiseMaskField ImageField InputField
        LatentsField MetadataField OutputField TensorField VideoField WithBoard WithMetadata
        WithWorkflow
    """,
    "invokeclone.graph.vocabulary.hints": """
        FieldKind Input UIComponent UIType
    """,
    "invokeclone.graph.invocations.invocation": """
        BaseInvocation BaseInvocationOutput Bottleneck invocation invocation_output
    """,
    "invokeclone.graph.vocabulary.model_fields": """
        LoRAField ModelIdentifierField
    """,
    "invokeclone.graph.invocations.outputs": """
        BooleanCollectionOutput BooleanOutput BoundingBoxOutput ColorCollectionOutput ColorOutput
        ConditioningCollectionOutput ConditioningOutput DenoiseMaskOutput FloatCollectionOutput
        FloatOutput ImageCollectionOutput ImageOutput IntegerCollectionOutput IntegerOutput
        LATENT_SCALE_FACTOR LatentsCollectionOutput LatentsOutput MetadataItemField MetadataItemOutput
        MetadataOutput ModelIdentifierOutput NoiseOutput SchedulerOutput StringCollectionOutput
        StringOutput VideoOutput
    """,
    "invokeclone.graph.vocabulary.scheduler_names": """
        SCHEDULER_NAME_VALUES
    """,
    "invokeclone.graph.vocabulary.taxonomy": """
        BaseModelType Classification ClipVariantType FluxVariantType ImageCategory ModelFormat
        ModelSourceType ModelType ModelVariantType ResourceOrigin SchedulerPredictionType SubModelType
    """,
    "invokeclone.kit.paging": """
        SQLiteDirection
    """,
    "invokeclone.kit.config.settings": """
        InvokeAIAppConfig
    """,
    "invokeclone.models.errors": """
        UnknownModelException
    """,
    "invokeclone.models.records.schemas": """
        AnyModelConfig
    """,
    "invokeclone.nodes.data.primitives": """
        BooleanCollectionInvocation ConditioningCollectionInvocation FloatCollectionInvocation
        IntegerCollectionInvocation LatentsCollectionInvocation StringCollectionInvocation
    """,
    "invokeclone.nodes.images.basic": """
        ImageCollectionInvocation
    """,
    "invokeclone.nodes.images.size": """
        PIL_RESAMPLING_MAP
    """,
    "invokeclone.nodes.latents.noise": """
        SEED_MAX
    """,
    "invokeclone.workflows.schemas": """
        WorkflowWithoutID
    """,
}

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
_PACKAGES = {TOP} | {
    ".".join(parts[:depth]) for parts in (name.split(".") for name in MODULES) for depth in range(1, len(parts))
}


class _Alias(ModuleType):
    """An alias module, which resolves names from the table."""

    def __getattr__(self, name: str) -> Any:
        """Return the target of `name`."""
        if name not in _MODULE_OF:
            raise AttributeError(f"{self.__name__} does not provide {name!r} here")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and creates the alias modules."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  (signature of the import system)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of an alias module or package."""
        if fullname not in MODULES and fullname not in _PACKAGES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname in _PACKAGES)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return an alias module."""
        return _Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: names are resolved on access."""


def install() -> None:
    """Enable imports of `invokeai` in this process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def names() -> frozenset[str]:
    """Return all names that packs can import."""
    return frozenset(_MODULE_OF)

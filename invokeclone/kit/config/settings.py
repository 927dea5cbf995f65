"""All settings with type, default and description. `settings_file.load_settings` reads them; importing has no effects.

The names are those of `invokeai.yaml` and `INVOKEAI_*`. Relative folders are relative to the root.
"""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import to_jsonable_python
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from invokeclone.kit.config import bounds
from invokeclone.kit.config.limits import Limits

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
RESERVED_PREFIXES = {"api", "ws", "static", "docs", "redoc", "openapi.json", "locales", "assets"}
DEVICE = re.compile(r"^(auto|cpu|mps|xpu(:\d+)?|cuda(:\d+)?)$")


class URLRegexTokenPair(BaseModel, frozen=True):
    """A bearer token that is sent with downloads from URLs that match the pattern."""

    url_regex: str
    token: str

    @field_validator("url_regex")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


def _optional(text: str, **limits: Any) -> Any:
    """Declare a nullable setting; the schema is published without a default, as in InvokeAI's API."""
    return Field(default=None, description=text, json_schema_extra=_drop_default, **limits)


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class InvokeAIAppConfig(BaseSettings):
    """The application's settings, frozen. Create with `load_settings`, or directly in a test."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    root: SkipJsonSchema[Path] = Field(default=Path("invokeai"), exclude=True)

    schema_version: str = Field("4.0.3", description="Version of the settings file format.")
    legacy_models_yaml_path: Path | None = _optional("Path of an old models.yaml.")

    # Web
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for the whole network.")
    port: int = Field(9090, description="Port to listen on; the next free one if it is in use.")
    allowed_hosts: SkipJsonSchema[list[str]] = Field(
        default=[],
        exclude=True,
        description="Host names accepted in requests. IP addresses, names without a dot, .local, .internal and this "
        "machine's own name are always accepted. A name, *.NAME for all its subdomains, or * for any.",
    )
    allow_origins: list[str] = Field([], description="Origins that browsers may call from (CORS).")
    allow_credentials: bool = Field(True, description="Allow credentials in cross-origin calls (CORS).")
    allow_methods: list[str] = Field(["*"], description="Methods allowed in cross-origin calls (CORS).")
    allow_headers: list[str] = Field(["*"], description="Headers allowed in cross-origin calls (CORS).")
    ssl_certfile: Path | None = _optional("Certificate file; enables HTTPS.")
    ssl_keyfile: Path | None = _optional("Key file of the certificate.")
    base_url: str | None = _optional("Path prefix under which a proxy serves this server, such as /invoke.")
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose forwarded headers are trusted.")
    http_compression_level: int = Field(9, ge=0, le=9, description="gzip level of responses; 0 disables compression.")

    # Features
    log_tokenization: bool = Field(False, description="Log how prompts are split into tokens.")
    patchmatch: bool = Field(True, description="Allow patchmatch infill.")

    # Paths
    models_dir: Path = Field(Path("models"), description="Folder of the models.")
    convert_cache_dir: Path = Field(Path("models/.convert_cache"), description="Deprecated.")
    download_cache_dir: Path = Field(
        Path("models/.download_cache"), description="Folder of models downloaded on demand."
    )
    legacy_conf_dir: Path = Field(Path("configs"), description="Folder of checkpoint configurations.")
    db_dir: Path = Field(Path("databases"), description="Folder of invokeai.db.")
    database_url: SkipJsonSchema[str | None] = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Address of a PostgreSQL database, postgresql://USER:PASSWORD@HOST:PORT/DATABASE; null: SQLite in db_dir.",
    )
    events_url: SkipJsonSchema[str | None] = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Address of a Redis or Valkey server, redis://USER:PASSWORD@HOST:PORT, over which several servers on one "
        "PostgreSQL database exchange events; null: this is the only server. See docs/several-servers.md.",
    )
    outputs_dir: Path = Field(Path("outputs"), description="Folder of images and tensors.")
    fonts_dir: Path = Field(Path("fonts"), description="Folder of fonts.")
    image_subfolder_strategy: Literal["flat", "date", "type", "hash"] = Field(
        "flat", description="How images are distributed over subfolders."
    )
    custom_nodes_dir: Path = Field(Path("nodes"), description="Folder of community node packs.")
    style_presets_dir: Path = Field(Path("style_presets"), description="Folder of style preset images.")
    workflow_thumbnails_dir: Path = Field(Path("workflow_thumbnails"), description="Folder of workflow thumbnails.")

    # Workers on other machines
    shared_models_dir: SkipJsonSchema[Path | None] = Field(
        default=None,
        exclude=True,
        description="Of a joined worker: the server's models folder as mounted on this machine; its models are not fetched.",
    )
    model_cache_dir: SkipJsonSchema[Path] = Field(
        default=Path("model_cache"),
        exclude=True,
        description="Of a joined worker: folder of the models fetched from the server; workers of one machine may share it.",
    )
    max_model_cache_gb: SkipJsonSchema[float] = Field(
        default=100.0,
        gt=0,
        le=1_000_000,
        exclude=True,
        description="Of a joined worker: size of model_cache_dir in GB; the models used longest ago are removed.",
    )

    # Storage
    storage_url: SkipJsonSchema[str | None] = Field(
        default=None,
        exclude=True,
        description="Where images, videos, their thumbnails, and the images of presets and workflows are stored: "
        "s3://BUCKET/PREFIX or file:///PATH; null: in the folders above. See docs/storage.md.",
    )
    storage_endpoint: SkipJsonSchema[str | None] = Field(
        default=None,
        exclude=True,
        description="Address of the S3 service, such as https://minio.example:9000; null: AWS_ENDPOINT_URL of the environment, "
        "or else Amazon's.",
    )
    storage_reads: SkipJsonSchema[Literal["proxied", "presigned"]] = Field(
        default="proxied",
        exclude=True,
        description="How clients read images and videos that are stored in S3: through this server, or by a redirect to a URL of "
        "the S3 service that expires soon.",
    )
    storage_public_endpoint: SkipJsonSchema[str | None] = Field(
        default=None,
        exclude=True,
        description="Address of the S3 service for clients, in presigned URLs; null: the same as for this server.",
    )

    # Logging
    log_handlers: list[str] = Field(["console"], description="console, file=PATH, syslog=ADDRESS, http=HOST/PATH.")
    log_format: Literal["plain", "color", "syslog", "legacy"] = Field("color", description="Format of log lines.")
    log_level: LogLevel = Field("info", description="Lowest level that is logged.")
    log_sql: bool = Field(False, description="Log every SQL statement.")
    log_level_network: LogLevel = Field("warning", description="Lowest level logged for network libraries.")

    log_json: SkipJsonSchema[bool] = Field(
        default=False, exclude=True, description="Write log lines as JSON, one object per line; log_format is ignored."
    )
    metrics: SkipJsonSchema[bool] = Field(
        default=True, exclude=True, description="Serve Prometheus metrics at /metrics; see docs/metrics.md."
    )

    # Development
    use_memory_db: bool = Field(False, description="Use an in-memory database, which is lost at exit.")
    dev_reload: bool = Field(False, description="Reload the server when its code changes.")
    profile_graphs: bool = Field(False, description="Profile each queue item with cProfile.")
    profile_prefix: str | None = _optional("Prefix of profile files.")
    profiles_dir: Path = Field(Path("profiles"), description="Folder of profiles.")

    # Cache
    max_cache_ram_gb: float | None = _optional("RAM for cached models in GB; null: half of the machine's RAM.", gt=0)
    max_cache_vram_gb: float | None = _optional("VRAM for cached models in GB; null: all free VRAM.", ge=0)
    log_memory_usage: bool = Field(False, description="Log memory before and after each model load.")
    model_cache_keep_alive_min: float = Field(
        0, ge=0, description="Minutes after which idle models are unloaded; 0: never."
    )
    device_working_mem_gb: float = Field(3, description="VRAM in GB reserved for computation.")
    enable_partial_loading: bool = Field(True, description="Run models that do not fit into VRAM partly from RAM.")
    keep_ram_copy_of_weights: bool = Field(True, description="Keep weights in RAM while they are in VRAM.")
    ram: float | None = _optional("Deprecated, unused.", gt=0)
    vram: float | None = _optional("Deprecated, unused.", ge=0)
    lazy_offload: bool = Field(True, description="Deprecated, unused.")
    pytorch_cuda_alloc_conf: str | None = _optional("PYTORCH_CUDA_ALLOC_CONF for the workers.")

    # Device
    device: str = Field("auto", pattern=DEVICE.pattern, description="auto, cpu, mps, cuda, cuda:N, xpu or xpu:N.")
    generation_devices: Literal["auto"] | list[str] = Field(
        "auto",
        description="Devices that run the queue, one worker each; auto: every GPU; []: none, only joined workers.",
    )
    offload_text_encoders_to_idle_gpus: bool = Field(True, description="Run text encoders on an idle GPU.")
    precision: Literal["auto", "float16", "bfloat16", "float32"] = Field("auto", description="Data type of weights.")

    # Generation
    sequential_guidance: bool = Field(
        False,
        description="Compute the network for the two prompts one after the other instead of together, to save memory.",
    )
    first_block_cache_threshold: SkipJsonSchema[float | None] = Field(
        default=None,
        ge=0,
        le=1,
        exclude=True,
        description="Reuse the blocks of FLUX.1 and CogView4 in steps whose first block changes by less than this share, "
        "such as 0.08; faster, but images differ. null: compute every block.",
    )
    pyramid_attention_broadcast: SkipJsonSchema[int | None] = Field(
        default=None,
        ge=2,
        le=8,
        exclude=True,
        description="Compute the attention of denoising networks only in every Nth step of the middle of a run (20 to 90 % "
        "of its steps), that to the prompt half as often; faster, but images differ. null: in every step.",
    )
    guidance_end: SkipJsonSchema[float] = Field(
        default=1.0,
        ge=0,
        le=1,
        exclude=True,
        description="Fraction of the steps after which the negative prompt is not used, such as 0.6; later steps compute the "
        "network once instead of twice, but images differ. 1: use it in every step.",
    )
    torch_compile: SkipJsonSchema[bool] = Field(
        default=False,
        exclude=True,
        description="Compile the blocks of denoising networks with torch.compile: the first run of each size takes minutes, "
        "later ones less time. Images differ by rounding.",
    )
    tiny_autoencoder_previews: SkipJsonSchema[bool] = Field(
        default=False,
        exclude=True,
        description="Decode the previews of Stable Diffusion 1, 2 and XL with a tiny autoencoder (TAESD), if one is installed "
        "as a VAE; sharper, but each step takes longer.",
    )
    wan_memory_optimization: bool = Field(False, description="Save memory in Wan models.")
    pid_memory_optimization: bool = Field(False, description="Save memory in PiD decoders.")
    attention_type: Literal["auto", "normal", "xformers", "sliced", "torch-sdp"] = Field(
        "auto",
        description="Attention of denoising networks. sliced: some heads at a time, which needs less memory where torch has "
        "no fused kernel; xformers: if it is installed, on CUDA; auto, normal and torch-sdp: torch's fused kernels.",
    )
    attention_slice_size: Literal["auto", "balanced", "max", 1, 2, 3, 4, 5, 6, 7, 8] = Field(
        "auto",
        description="Heads at a time for attention_type sliced: a number, max (one), balanced (half of them), or auto (as many "
        "as fit into the free memory).",
    )
    force_tiled_decode: bool = Field(False, description="Decode latents in tiles to save memory.")
    pil_compress_level: int = Field(1, description="PNG compression level, 0 to 9.")

    # Queue
    max_queue_size: int = Field(10000, gt=0, description="Maximum number of pending items.")
    session_queue_mode: Literal["FIFO", "round_robin"] = Field(
        "round_robin", description="Order of the items of different users."
    )
    clear_queue_on_startup: bool = Field(False, description="Clear the queue at startup.")
    cancel_grace_s: SkipJsonSchema[float] = Field(
        default=5.0,
        gt=0,
        le=3600,
        exclude=True,
        description="Seconds that a canceled item may take to stop before its worker is replaced.",
    )
    max_queue_history: int | None = _optional("Finished items kept at startup; null: all.", ge=0)
    max_pending_items_per_user: SkipJsonSchema[int | None] = Field(
        default=None,
        ge=0,
        exclude=True,
        description="Maximum number of pending items of each user, in all queues; null: no limit. Administrators are exempt; "
        "`invokeclone user quota` sets other limits for single users.",
    )
    max_images_per_user_per_day: SkipJsonSchema[int | None] = Field(
        default=None,
        ge=0,
        exclude=True,
        description="Images and videos of one day, in UTC, after which a user cannot enqueue more items on that day; null: no "
        "limit. Administrators are exempt; `invokeclone user quota` sets other limits for single users.",
    )

    # Nodes
    allow_nodes: list[str] | None = _optional("Allowed node types; null: all.")
    deny_nodes: list[str] | None = _optional("Denied node types.")
    node_cache_size: int = Field(512, description="Node results cached for reuse; 0: none.")
    allowed_file_folders: SkipJsonSchema[list[Path]] = Field(
        default=[Path("prompts")],
        exclude=True,
        description="Folders whose text files nodes may read for any user. Administrators, and a single user on this "
        "machine, may read any other file.",
    )

    # Models
    hashing_algorithm: Literal[
        "blake3_multi", "blake3_single", "random", "md5", "sha1", "sha224", "sha256", "sha384", "sha512",
        "blake2b", "blake2s", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "shake_128", "shake_256",
    ] = Field("blake3_single", description="Hash algorithm for installed models.")  # fmt: skip
    remote_api_tokens: list[URLRegexTokenPair] | None = _optional("Tokens for download URLs.")
    scan_models_on_startup: bool = Field(False, description="Look for unregistered models at startup.")
    allow_private_download_urls: bool = Field(False, description="Allow downloads from private addresses.")
    download_proxy: str | None = _optional("Proxy for downloads.")
    download_proxy_resolves_names: SkipJsonSchema[bool] = Field(
        default=False,
        exclude=True,
        description="Let `download_proxy` resolve the names of webhooks. It must refuse private addresses itself.",
    )
    allow_private_webhook_urls: SkipJsonSchema[bool] = Field(
        default=False, exclude=True, description="Allow webhooks at private addresses."
    )
    unsafe_disable_picklescan: bool = Field(False, description="Do not scan pickle files.")
    allow_unknown_models: bool = Field(True, description="Register models that no identification rule matches.")

    # Compatibility APIs
    comfyui_previews: SkipJsonSchema[bool] = Field(
        default=False,
        exclude=True,
        description="Send previews of running images to every client of ComfyUI's API, also to those that do not ask "
        "for them with `extra_data.preview_method`; some clients take previews for results.",
    )

    # Users
    multiuser: bool = Field(False, description="Enable accounts, roles and tokens.")
    strict_password_checking: bool = Field(False, description="Require strong passwords.")

    # Limits
    limits: SkipJsonSchema[Limits] = Field(
        default=Limits(), exclude=True, description="Size limits of requests; see docs/limits.md."
    )

    # External image services
    external_alibabacloud_api_key: str | None = _optional("Key for Alibaba Cloud.")
    external_alibabacloud_base_url: str | None = _optional("URL of Alibaba Cloud's service.")
    external_gemini_api_key: str | None = _optional("Key for Gemini.")
    external_gemini_base_url: str | None = _optional("URL of Gemini's service.")
    external_openai_api_key: str | None = _optional("Key for OpenAI.")
    external_openai_base_url: str | None = _optional("URL of OpenAI's service.")
    external_seedream_api_key: str | None = _optional("Key for Seedream.")
    external_seedream_base_url: str | None = _optional("URL of Seedream's service.")

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic-settings passes it by name)
        init_settings: PydanticBaseSettingsSource,
        **_: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Disable reading of the environment: `load_settings` reads it, with one message per mistake."""
        return (init_settings,)

    @field_validator("*")
    @classmethod
    def _can_be_used(cls, value: Any, info: ValidationInfo) -> Any:
        return bounds.check(str(info.field_name), value)

    @field_validator("base_url")
    @classmethod
    def _normalise_prefix(cls, value: str | None) -> str | None:
        prefix = "/".join(part for part in (value or "").split("/") if part)
        if not prefix:
            return None
        if prefix.split("/")[0] in RESERVED_PREFIXES:
            raise ValueError(f"may not begin with {prefix.split('/')[0]!r}, which the server uses itself")
        return f"/{prefix}"

    @field_validator("generation_devices")
    @classmethod
    def _devices_have_names(cls, value: Literal["auto"] | list[str]) -> Literal["auto"] | list[str]:
        if value == "auto":
            return value
        wrong = [name for name in value if not DEVICE.match(name) or name == "auto"]
        if wrong:
            raise ValueError(f"not a device: {wrong[0]!r}")
        return list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _events_need_a_shared_database(self) -> Self:
        if self.events_url is not None and self.database_url is None:
            raise ValueError("events_url is for several servers on one PostgreSQL database: set database_url too")
        return self

    @model_validator(mode="after")
    def _https_needs_both(self) -> Self:
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise ValueError("set both ssl_certfile and ssl_keyfile, or neither")
        return self

    def under_root(self, path: Path) -> Path:
        """Return an absolute path unchanged and a relative path below the root."""
        return (self.root / path.expanduser()).absolute()

    @property
    def models_path(self) -> Path:
        """Folder of the models, absolute."""
        return self.under_root(self.models_dir)

    @property
    def outputs_path(self) -> Path:
        """Folder of images and tensors, absolute."""
        return self.under_root(self.outputs_dir)

    @property
    def database_path(self) -> Path:
        """The database file, absolute."""
        return self.under_root(self.db_dir) / "invokeai.db"

    @property
    def custom_nodes_path(self) -> Path:
        """Folder of community node packs, absolute."""
        return self.under_root(self.custom_nodes_dir)

    @property
    def download_cache_path(self) -> Path:
        """Folder of models downloaded on demand, absolute."""
        return self.under_root(self.download_cache_dir)

    @property
    def model_cache_path(self) -> Path:
        """Folder of the models that a joined worker fetched, absolute."""
        return self.under_root(self.model_cache_dir)

    @property
    def fonts_path(self) -> Path:
        """Folder of fonts, absolute."""
        return self.under_root(self.fonts_dir)

    @property
    def style_presets_path(self) -> Path:
        """Folder of style preset images, absolute."""
        return self.under_root(self.style_presets_dir)

    @property
    def workflow_thumbnails_path(self) -> Path:
        """Folder of workflow thumbnails, absolute."""
        return self.under_root(self.workflow_thumbnails_dir)

    @property
    def profiles_path(self) -> Path:
        """Folder of profiles, absolute."""
        return self.under_root(self.profiles_dir)

    @property
    def legacy_conf_path(self) -> Path:
        """Folder of checkpoint configurations, absolute."""
        return self.under_root(self.legacy_conf_dir)

    @property
    def allowed_file_paths(self) -> list[Path]:
        """Folders whose text files nodes may read for any user, absolute."""
        return [self.under_root(folder) for folder in self.allowed_file_folders]

    def to_worker(self) -> dict[str, Any]:
        """Return every setting including the root as JSON for another process: `Settings(**settings.to_worker())`."""
        return {**self.values(), "root": str(self.root.absolute())}

    def values(self) -> dict[str, Any]:
        """Return every setting as JSON, including those that InvokeAI's API does not have."""
        return {name: to_jsonable_python(getattr(self, name)) for name in type(self).model_fields}


Settings = InvokeAIAppConfig
"""The name used in this codebase; the class name is the one that clients and community nodes use."""

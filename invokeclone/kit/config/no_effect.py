"""Settings of InvokeAI that are accepted and validated without an effect, and what will bring one.

Loading settings reports those that are set, except keys and addresses of image services: the API stores them for later.
"""

_EXTERNAL = "The family of external image services will use it; it has records but no nodes yet."

REPORTED: dict[str, str] = {
    "legacy_models_yaml_path": "Models of InvokeAI 2 and 3 are installed from their files.",
    "convert_cache_dir": "It is deprecated in InvokeAI too: single files are read without conversion.",
    "legacy_conf_dir": "The configurations of single files are part of this package.",
    "dev_reload": "Restart the server instead, which takes 3 seconds.",
    "ram": "It is deprecated in InvokeAI too: set `max_cache_ram_gb`.",
    "vram": "It is deprecated in InvokeAI too: set `max_cache_vram_gb`. It had another meaning, so its value is not used.",
    "lazy_offload": "It is deprecated in InvokeAI too: models stay on the device until their memory is needed.",
    "offload_text_encoders_to_idle_gpus": "Text encoders compute on their worker's device.",
    "wan_memory_optimization": "The family of Wan will use it; it has records but no nodes yet.",
    "pid_memory_optimization": "The PiD decoder will use it; it has no node yet.",
    "unsafe_disable_picklescan": "Torch files are read without executing code from them, so there is nothing to disable.",
}
"""The reason, or what will bring an effect, by the setting's name."""

NO_EFFECT: dict[str, str] = REPORTED | {
    f"external_{service}_{part}": _EXTERNAL
    for service in ("alibabacloud", "gemini", "openai", "seedream")
    for part in ("api_key", "base_url")
}
"""As above, with those that are not reported."""

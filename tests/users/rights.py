"""Table of rights: what each operation answers to whom, by operation id.

`{image}`, `{item}`, … stand for a fresh thing of the owner's. Columns: the owner, another user, an admin. Who has no token gets
401 from all of them; what is open to everybody is in OPEN. Where an admin's 4xx stands, the request is meant to go no further
than the rights (422: a parameter is missing, 404: there is no such thing), because the rest would reach the network.
"""

from dataclasses import dataclass, field
from typing import Any

Q = "/api/v1/queue/default"
APP = "/api/v1/app"
AUTH = "/api/v1/auth"
IMAGES = "/api/v1/images"
VIDEOS = "/api/v1/videos"
BOARDS = "/api/v1/boards"
MODELS = "/api/v2/models"
PACKS = "/api/v2/custom_nodes"
RELATED = "/api/v1/model_relationships"
WORKFLOWS = "/api/v1/workflows"
PRESETS = "/api/v1/style_presets"
PROMPTS = "/api/v1/system_prompts"
STATE = "/api/v1/client_state/default"
HOOKS = "/api/v1/webhooks"


@dataclass(frozen=True)
class Row:
    """A request and the statuses it gets."""

    request: str
    owner: int = 200
    other: int = 200
    admin: int | tuple[int, ...] = 200
    send: dict[str, Any] = field(default_factory=dict)
    """What httpx takes: `json`, `data`, `files`."""


def everyone(request: str, status: int = 200, **send: Any) -> Row:
    """Return the row of what every user may do; it reaches their own things, or nobody's."""
    return Row(request, status, status, status, send)


def owner_row(request: str, status: int = 200, other: int = 403, **send: Any) -> Row:
    """Return the row of what the owner and admins may do."""
    return Row(request, status, other, status, send)


def admins(request: str, status: int | tuple[int, ...] = 200, **send: Any) -> Row:
    """Return the row of what admins may do; several statuses where it depends on what else goes on."""
    return Row(request, 403, 403, status, send)


SECRET = "hush-hush"
"""A word that is in each of the owner's things: whoever may not see them may not read it anywhere."""

PNG: dict[str, Any] = {"files": {"image": ("a.png", b"<png>", "image/png")}}
PRESET = '{"name":"n","positive_prompt":"hush-hush","negative_prompt":"","type":"user"}'
NAMES: dict[str, Any] = {"json": {"image_names": ["{image}"]}}

OPEN = {
    "app_version": f"GET {APP}/version",
    "get_setup_status_api_v1_auth_status_get": f"GET {AUTH}/status",
    "setup_admin_api_v1_auth_setup_post": f"POST {AUTH}/setup",
    "login_api_v1_auth_login_post": f"POST {AUTH}/login",
    "get_model_image": f"GET {MODELS}/i/{{model}}/image",
}
"""What needs no token: it answers anything but 401 and 403."""

RIGHTS: dict[str, Row] = {
    # The application
    "get_app_deps": everyone(f"GET {APP}/app_deps"),
    "get_config": everyone(f"GET {APP}/config"),
    "get_patchmatch_status": everyone(f"GET {APP}/patchmatch_status"),
    "get_generation_device_options": everyone(f"GET {APP}/generation_device_options"),
    "get_runtime_config": admins(f"GET {APP}/runtime_config"),
    "update_runtime_config": admins(f"PATCH {APP}/runtime_config", json={}),
    "get_log_level": admins(f"GET {APP}/logging"),
    "set_log_level": admins(f"POST {APP}/logging", json=30),
    "get_invocation_cache_status": admins(f"GET {APP}/invocation_cache/status"),
    "clear_invocation_cache": admins(f"DELETE {APP}/invocation_cache"),
    "enable_invocation_cache": admins(f"PUT {APP}/invocation_cache/enable"),
    "disable_invocation_cache": admins(f"PUT {APP}/invocation_cache/disable"),
    "get_external_provider_statuses": everyone(f"GET {APP}/external_providers/status"),
    "get_external_provider_configs": admins(f"GET {APP}/external_providers/config"),
    "set_external_provider_config": admins(f"POST {APP}/external_providers/config/nobody", 404, json={"api_key": "k"}),
    "reset_external_provider_config": admins(f"DELETE {APP}/external_providers/config/nobody", 404),
    # Accounts
    "logout_api_v1_auth_logout_post": everyone(f"POST {AUTH}/logout"),
    "refresh_media_cookie_api_v1_auth_media_cookie_post": everyone(f"POST {AUTH}/media-cookie"),
    "get_current_user_info_api_v1_auth_me_get": everyone(f"GET {AUTH}/me"),
    "update_current_user_api_v1_auth_me_patch": everyone(f"PATCH {AUTH}/me", json={}),
    "generate_password_api_v1_auth_generate_password_get": everyone(f"GET {AUTH}/generate-password"),
    "list_users_api_v1_auth_users_get": admins(f"GET {AUTH}/users"),
    "create_user_api_v1_auth_users_post": admins(
        f"POST {AUTH}/users", 201, json={"email": "new@example.com", "password": "x"}
    ),
    "get_user_api_v1_auth_users__user_id__get": admins(f"GET {AUTH}/users/{{user}}"),
    "update_user_api_v1_auth_users__user_id__patch": admins(f"PATCH {AUTH}/users/{{user}}", json={"is_admin": True}),
    "delete_user_api_v1_auth_users__user_id__delete": admins(f"DELETE {AUTH}/users/{{user}}", 204),
    "get_own_quota": everyone(f"GET {AUTH}/me/quota"),
    "get_user_quota": admins(f"GET {AUTH}/users/{{user}}/quota"),
    "update_user_quota": admins(f"PATCH {AUTH}/users/{{user}}/quota", json={"pending_items": 5}),
    "reset_user_quota": admins(f"DELETE {AUTH}/users/{{user}}/quota"),
    # The queue
    "enqueue_batch": everyone(
        f"POST {Q}/enqueue_batch", json={"batch": {"graph": {"nodes": {"a": {"id": "a", "type": "add"}}}, "runs": 1}}
    ),
    "enqueue_prompt": everyone(f"POST {Q}/enqueue_prompt", json={"prompt": "a cat"}),
    "list_all_queue_items": everyone(f"GET {Q}/list_all"),
    "get_queue_item_ids": everyone(f"GET {Q}/item_ids"),
    "get_pending_queue_item_ids": everyone(f"GET {Q}/pending_item_ids"),
    "get_queue_items_by_item_ids": everyone(f"POST {Q}/items_by_ids", json={"item_ids": ["{item}"]}),
    "get_queue_item_summaries_by_ids": everyone(f"POST {Q}/item_summaries_by_ids", json={"item_ids": ["{item}"]}),
    "resume": admins(f"PUT {Q}/processor/resume"),
    "pause": admins(f"PUT {Q}/processor/pause"),
    "cancel_all_except_current": everyone(f"PUT {Q}/cancel_all_except_current"),
    "delete_all_except_current": everyone(f"PUT {Q}/delete_all_except_current"),
    "cancel_by_batch_ids": everyone(f"PUT {Q}/cancel_by_batch_ids", json={"batch_ids": ["b"]}),
    "cancel_by_destination": everyone(f"PUT {Q}/cancel_by_destination?destination=d"),
    "retry_items_by_id": owner_row(f"PUT {Q}/retry_items_by_id", json=["{item}"]),
    "move_items_by_id": owner_row(f"PUT {Q}/move_items_by_id", json={"item_ids": ["{item}"], "to": "front"}),
    "clear": everyone(f"PUT {Q}/clear"),
    "prune": everyone(f"PUT {Q}/prune"),
    "get_current_queue_item": everyone(f"GET {Q}/current"),
    "get_next_queue_item": everyone(f"GET {Q}/next"),
    "get_queue_status": everyone(f"GET {Q}/status"),
    "get_batch_status": everyone(f"GET {Q}/b/b/status"),
    "counts_by_destination": everyone(f"GET {Q}/counts_by_destination?destination=d"),
    "get_queue_item": everyone(f"GET {Q}/i/{{item}}"),
    "delete_queue_item": owner_row(f"DELETE {Q}/i/{{item}}"),
    "prepend_queue_item": owner_row(f"PUT {Q}/i/{{item}}/prepend"),
    "cancel_queue_item": owner_row(f"PUT {Q}/i/{{item}}/cancel"),
    "delete_by_destination": everyone(f"DELETE {Q}/d/d"),
    # Webhooks
    "list_webhooks": everyone(f"GET {HOOKS}/"),
    "create_webhook": everyone(f"POST {HOOKS}/", 201, json={"url": "https://example.com"}),
    "get_webhook": owner_row(f"GET {HOOKS}/{{webhook}}"),
    "delete_webhook": owner_row(f"DELETE {HOOKS}/{{webhook}}", 204),
    "enable_webhook": owner_row(f"POST {HOOKS}/{{webhook}}/enable"),
    "test_webhook": owner_row(f"POST {HOOKS}/{{webhook}}/test"),
    "list_webhook_deliveries": owner_row(f"GET {HOOKS}/{{webhook}}/deliveries"),
    # Images
    "upload_image": everyone(
        f"POST {IMAGES}/upload?image_category=general&is_intermediate=false",
        201,
        files={"file": ("a.png", b"<png>", "image/png")},
    ),
    "create_image_upload_entry": everyone(f"POST {IMAGES}/", 501, json={"width": 8, "height": 8}),
    "list_image_dtos": everyone(f"GET {IMAGES}/"),
    "get_image_names": everyone(f"GET {IMAGES}/names"),
    "get_images_by_names": everyone(f"POST {IMAGES}/images_by_names", **NAMES),
    "get_intermediates_count": everyone(f"GET {IMAGES}/intermediates"),
    "clear_intermediates": admins(f"DELETE {IMAGES}/intermediates"),
    "delete_uncategorized_images": everyone(f"DELETE {IMAGES}/uncategorized"),
    "delete_images_from_list": everyone(f"POST {IMAGES}/delete", **NAMES),
    "star_images_in_list": everyone(f"POST {IMAGES}/star", **NAMES),
    "unstar_images_in_list": everyone(f"POST {IMAGES}/unstar", **NAMES),
    "get_image_dto": owner_row(f"GET {IMAGES}/i/{{image}}"),
    "update_image": owner_row(f"PATCH {IMAGES}/i/{{image}}", json={"starred": True}),
    "delete_image": owner_row(f"DELETE {IMAGES}/i/{{image}}"),
    "get_image_metadata": owner_row(f"GET {IMAGES}/i/{{image}}/metadata"),
    "get_image_workflow": owner_row(f"GET {IMAGES}/i/{{image}}/workflow"),
    "get_image_urls": owner_row(f"GET {IMAGES}/i/{{image}}/urls"),
    "get_image_full": owner_row(f"GET {IMAGES}/i/{{image}}/full"),
    "get_image_full_head": owner_row(f"HEAD {IMAGES}/i/{{image}}/full"),
    "get_image_thumbnail": owner_row(f"GET {IMAGES}/i/{{image}}/thumbnail"),
    "download_images_from_list": owner_row(f"POST {IMAGES}/download", 202, **NAMES),
    "get_bulk_download_item": owner_row(f"GET {IMAGES}/download/{{zip}}"),
    # Videos
    "upload_video": everyone(f"POST {VIDEOS}/upload", 422),
    "list_video_dtos": everyone(f"GET {VIDEOS}/"),
    "get_video_names": everyone(f"GET {VIDEOS}/names"),
    "get_video_ids": everyone(f"GET {VIDEOS}/ids"),
    "get_videos_by_ids": everyone(f"POST {VIDEOS}/videos_by_ids", json={"video_ids": ["{video}"]}),
    "delete_uncategorized_videos": everyone(f"DELETE {VIDEOS}/uncategorized"),
    "delete_videos_from_list": everyone(f"POST {VIDEOS}/delete", json={"video_names": ["{video}"]}),
    "star_videos_in_list": everyone(f"POST {VIDEOS}/star", json={"video_names": ["{video}"]}),
    "unstar_videos_in_list": everyone(f"POST {VIDEOS}/unstar", json={"video_names": ["{video}"]}),
    "get_video_dto": owner_row(f"GET {VIDEOS}/i/{{video}}"),
    "update_video": owner_row(f"PATCH {VIDEOS}/i/{{video}}", json={"starred": True}),
    "delete_video": owner_row(f"DELETE {VIDEOS}/i/{{video}}"),
    "get_video_metadata": owner_row(f"GET {VIDEOS}/i/{{video}}/metadata"),
    "get_video_workflow": owner_row(f"GET {VIDEOS}/i/{{video}}/workflow"),
    "get_video_urls": owner_row(f"GET {VIDEOS}/i/{{video}}/urls"),
    "get_video_full": owner_row(f"GET {VIDEOS}/i/{{video}}/full"),
    "get_video_full_head": owner_row(f"HEAD {VIDEOS}/i/{{video}}/full"),
    "get_video_thumbnail": owner_row(f"GET {VIDEOS}/i/{{video}}/thumbnail"),
    "add_video_to_board": owner_row(f"POST {VIDEOS}/board", json={"board_id": "{board}", "video_name": "{video}"}),
    "remove_video_from_board": owner_row(f"DELETE {VIDEOS}/board", json={"video_name": "{video}"}),
    "add_videos_to_board": owner_row(
        "POST /api/v1/board_videos/batch", 201, json={"board_id": "{board}", "video_ids": ["{video}"]}
    ),
    "remove_videos_from_board": everyone(
        "POST /api/v1/board_videos/batch/delete", 201, json={"video_ids": ["{video}"]}
    ),
    # The gallery
    "list_gallery_items": everyone("GET /api/v1/gallery/items/"),
    "list_gallery_item_names": everyone("GET /api/v1/gallery/item_names"),
    "get_gallery_item_names": everyone("GET /api/v1/gallery/items/names"),
    "list_virtual_boards_by_date": everyone("GET /api/v1/virtual_boards/by_date"),
    "list_virtual_board_image_names_by_date": everyone("GET /api/v1/virtual_boards/by_date/2026-01-01/image_names"),
    "list_virtual_board_item_names_by_date": everyone("GET /api/v1/virtual_boards/by_date/2026-01-01/item_names"),
    # Boards
    "create_board": everyone(f"POST {BOARDS}/?board_name=x", 201),
    "list_boards": everyone(f"GET {BOARDS}/?all=true"),
    "get_board": owner_row(f"GET {BOARDS}/{{board}}"),
    "update_board": owner_row(f"PATCH {BOARDS}/{{board}}", 201, json={"board_name": "y"}),
    "delete_board": owner_row(f"DELETE {BOARDS}/{{board}}"),
    "list_all_board_image_names": owner_row(f"GET {BOARDS}/{{board}}/image_names"),
    "add_image_to_board": owner_row(
        "POST /api/v1/board_images/", 201, json={"board_id": "{board}", "image_name": "{image}"}
    ),
    "remove_image_from_board": owner_row("DELETE /api/v1/board_images/", 201, json={"image_name": "{image}"}),
    "add_images_to_board": owner_row(
        "POST /api/v1/board_images/batch", 201, json={"board_id": "{board}", "image_names": ["{image}"]}
    ),
    "remove_images_from_board": everyone("POST /api/v1/board_images/batch/delete", 201, **NAMES),
    # Models
    "list_model_records": everyone(f"GET {MODELS}/"),
    "list_missing_models": everyone(f"GET {MODELS}/missing"),
    "get_model_records_by_attrs": everyone(f"GET {MODELS}/get_by_attrs?name=nobody&type=main&base=sd-1", 404),
    "get_model_records_by_hash": everyone(f"GET {MODELS}/get_by_hash?hash=nobody", 404),
    "get_model_record": everyone(f"GET {MODELS}/i/{{model}}"),
    "list_model_capabilities": everyone(f"GET {MODELS}/capabilities"),
    "get_model_capabilities": everyone(f"GET {MODELS}/i/nobody/capabilities", 404),
    "update_model_record": admins(f"PATCH {MODELS}/i/{{model}}", json={"description": "d"}),
    "delete_model": admins(f"DELETE {MODELS}/i/nobody", 404),
    "reidentify_model": admins(f"POST {MODELS}/i/nobody/reidentify", 404),
    "bulk_delete_models": admins(f"POST {MODELS}/i/bulk_delete", json={"keys": []}),
    "bulk_reidentify_models": admins(f"POST {MODELS}/i/bulk_reidentify", json={"keys": []}),
    "update_model_image": admins(f"PATCH {MODELS}/i/{{model}}/image", **PNG),
    "delete_model_image": admins(f"DELETE {MODELS}/i/nobody/image", 404),
    "convert_model": admins(f"PUT {MODELS}/convert/nobody", 424),
    "scan_for_models": admins(f"GET {MODELS}/scan_folder?scan_path=/no/such/folder", 400),
    "get_starter_models": admins(f"GET {MODELS}/starter_models"),
    "get_stats": admins(f"GET {MODELS}/stats"),
    "empty_model_cache": admins(f"POST {MODELS}/empty_model_cache"),
    "get_orphaned_models": admins(f"GET {MODELS}/sync/orphaned"),
    "delete_orphaned_models": admins(f"DELETE {MODELS}/sync/orphaned", json={"paths": []}),
    "install_model": admins(f"POST {MODELS}/install", 422),
    "list_model_installs": admins(f"GET {MODELS}/install"),
    "prune_model_install_jobs": admins(f"DELETE {MODELS}/install", 204),
    "install_hugging_face_model": admins(f"GET {MODELS}/install/huggingface", 422),
    "get_model_install_job": admins(f"GET {MODELS}/install/999", 404),
    "cancel_model_install_job": admins(f"DELETE {MODELS}/install/999", 415),
    "pause_model_install_job": admins(f"POST {MODELS}/install/999/pause", 415),
    "resume_model_install_job": admins(f"POST {MODELS}/install/999/resume", 415),
    "restart_failed_model_install_job": admins(f"POST {MODELS}/install/999/restart_failed", 415),
    "restart_model_install_file": admins(f"POST {MODELS}/install/999/restart_file", 422),
    "get_hugging_face_models": admins(f"GET {MODELS}/hugging_face", 400),
    "get_hf_login_status": admins(f"GET {MODELS}/hf_login"),
    "do_hf_login": admins(f"POST {MODELS}/hf_login", 422),
    "reset_hf_token": admins(f"DELETE {MODELS}/hf_login"),
    "get_related_models": everyone(f"GET {RELATED}/i/{{model}}"),
    "get_related_models_batch": everyone(f"POST {RELATED}/batch", json={"model_keys": []}),
    "add_model_relationship_api_v1_model_relationships__post": admins(f"POST {RELATED}/", 422),
    "remove_model_relationship_api_v1_model_relationships__delete": admins(f"DELETE {RELATED}/", 422),
    "list_downloads": admins("GET /api/v1/download_queue/"),
    "prune_downloads": admins("PATCH /api/v1/download_queue/", 204),
    "download": admins("POST /api/v1/download_queue/i/", 422),
    "get_download_job": admins("GET /api/v1/download_queue/i/999", 404),
    "cancel_download_job": admins("DELETE /api/v1/download_queue/i/999", 404),
    "cancel_all_download_jobs": admins("DELETE /api/v1/download_queue/i", 204),
    # Community nodes
    "list_custom_node_packs": admins(f"GET {PACKS}/"),
    "install_custom_node_pack": admins(f"POST {PACKS}/install", 422),
    "reload_custom_nodes": admins(f"POST {PACKS}/reload"),
    "uninstall_custom_node_pack": admins(f"DELETE {PACKS}/nothing"),
    # Workers
    "list_workers": admins("GET /api/v1/workers/"),
    # One's own state
    "get_client_state_by_key": everyone(f"GET {STATE}/get_by_key?key=k"),
    "get_client_state_keys_by_prefix": everyone(f"GET {STATE}/get_keys_by_prefix?prefix=k"),
    "set_client_state": everyone(f"POST {STATE}/set_by_key?key=k", json="text"),
    "delete_client_state_by_key": everyone(f"POST {STATE}/delete_by_key?key=k"),
    "delete_client_state": everyone(f"POST {STATE}/delete"),
    "update_recall_parameters": everyone("POST /api/v1/recall/default", json={"steps": 3}),
    "get_recall_parameters": everyone("GET /api/v1/recall/default"),
    # Utilities
    "parse_dynamicprompts": everyone("POST /api/v1/utilities/dynamicprompts", json={"prompt": "a"}),
    "list_user_fonts": everyone("GET /api/v1/utilities/fonts"),
    "get_user_font_file": everyone("GET /api/v1/utilities/fonts/nothing.ttf", 404),
    "expand_prompt": everyone("POST /api/v1/utilities/expand-prompt", 404, json={"prompt": "a", "model_key": "nobody"}),
    "image_to_prompt": everyone(
        "POST /api/v1/utilities/image-to-prompt", 404, json={"image_name": "nobody.png", "model_key": "nobody"}
    ),
    # Style presets and system prompts
    "list_style_presets": everyone(f"GET {PRESETS}/"),
    "create_style_preset": everyone(f"POST {PRESETS}/", data={"data": PRESET}),
    "export_style_presets": admins(f"GET {PRESETS}/export"),
    "import_style_presets": admins(f"POST {PRESETS}/import", files={"file": ("a.json", b"[]", "application/json")}),
    "get_style_preset": owner_row(f"GET {PRESETS}/i/{{preset}}"),
    "update_style_preset": owner_row(f"PATCH {PRESETS}/i/{{preset}}", data={"data": PRESET}),
    "delete_style_preset": owner_row(f"DELETE {PRESETS}/i/{{preset}}"),
    "get_style_preset_image": Row(f"GET {PRESETS}/i/{{preset}}/image", 404, 403, 404),
    "list_system_prompts": everyone(f"GET {PROMPTS}/"),
    "create_system_prompt": everyone(f"POST {PROMPTS}/", json={"name": "n", "content": "c"}),
    "get_system_prompt": owner_row(f"GET {PROMPTS}/i/{{prompt}}"),
    "update_system_prompt": owner_row(f"PATCH {PROMPTS}/i/{{prompt}}", json={"name": "m"}),
    "delete_system_prompt": owner_row(f"DELETE {PROMPTS}/i/{{prompt}}"),
    # Workflows
    "list_workflows": everyone(f"GET {WORKFLOWS}/"),
    "create_workflow": everyone(f"POST {WORKFLOWS}/", json={"workflow": "{form}"}),
    "get_all_tags": everyone(f"GET {WORKFLOWS}/tags"),
    "get_counts_by_tag": everyone(f"GET {WORKFLOWS}/counts_by_tag?tags=a"),
    "counts_by_category": everyone(f"GET {WORKFLOWS}/counts_by_category?categories=user"),
    "get_workflow": owner_row(f"GET {WORKFLOWS}/i/{{workflow}}"),
    "update_workflow": owner_row(f"PATCH {WORKFLOWS}/i/{{workflow}}", json={"workflow": "{form with id}"}),
    "delete_workflow": owner_row(f"DELETE {WORKFLOWS}/i/{{workflow}}"),
    "update_workflow_is_public": owner_row(f"PATCH {WORKFLOWS}/i/{{workflow}}/is_public", json={"is_public": True}),
    "update_opened_at": owner_row(f"PUT {WORKFLOWS}/i/{{workflow}}/opened_at"),
    "set_workflow_thumbnail": owner_row(f"PUT {WORKFLOWS}/i/{{workflow}}/thumbnail", **PNG),
    "get_workflow_thumbnail": Row(f"GET {WORKFLOWS}/i/{{workflow}}/thumbnail", 404, 403, 404),
    "delete_workflow_thumbnail": Row(f"DELETE {WORKFLOWS}/i/{{workflow}}/thumbnail", 404, 403, 404),
    # Moving images: last, because it keeps others out while it lasts
    "get_image_move_status": admins("GET /api/v1/image_moves/status"),
    "start_image_move": admins("POST /api/v1/image_moves/start", 202),
    "start_image_move_recovery": admins("POST /api/v1/image_moves/recover", (202, 409)),
}

COMPAT: dict[str, Row] = {
    # AUTOMATIC1111
    "POST /sdapi/v1/txt2img": everyone("POST /sdapi/v1/txt2img", 400, json=[]),
    "POST /sdapi/v1/img2img": everyone("POST /sdapi/v1/img2img", 404, json={}),
    "POST /sdapi/v1/extra-single-image": everyone("POST /sdapi/v1/extra-single-image", 400, json=[]),
    "POST /sdapi/v1/extra-batch-images": everyone("POST /sdapi/v1/extra-batch-images", 400, json=[]),
    "POST /sdapi/v1/png-info": everyone("POST /sdapi/v1/png-info", 400, json=[]),
    "GET /sdapi/v1/progress": everyone("GET /sdapi/v1/progress"),
    "POST /sdapi/v1/interrupt": everyone("POST /sdapi/v1/interrupt"),
    "POST /sdapi/v1/skip": everyone("POST /sdapi/v1/skip"),
    "POST /sdapi/v1/options": everyone("POST /sdapi/v1/options", json={}),
    **{
        f"GET /sdapi/v1/{name}": everyone(f"GET /sdapi/v1/{name}")
        for name in (
            "options", "sd-models", "sd-modules", "sd-vae", "loras", "embeddings", "samplers", "schedulers", "upscalers",
            "latent-upscale-modes", "script-info", "prompt-styles", "realesrgan-models", "face-restorers", "hypernetworks",
            "scripts", "memory", "cmd-flags",
        )
    },
    **{
        f"POST /sdapi/v1/{name}": everyone(f"POST /sdapi/v1/{name}")
        for name in ("refresh-loras", "refresh-vae", "refresh-checkpoints", "reload-checkpoint")
    },
    "POST /sdapi/v1/unload-checkpoint": admins("POST /sdapi/v1/unload-checkpoint"),
    **{f"GET /controlnet/{name}": everyone(f"GET /controlnet/{name}") for name in ("model_list", "module_list", "version")},
    "GET /sdapi/v1/{path:path}": everyone("GET /sdapi/v1/nothing", 404),
    "GET /controlnet/{path:path}": everyone("GET /controlnet/nothing", 404),
    # ComfyUI
    "GET /prompt": everyone("GET /prompt"),
    "POST /prompt": Row(
        "POST /prompt",
        other=400,
        send={
            "json": {
                "prompt": {
                    "1": {"class_type": "LoadImage", "inputs": {"image": "{image}"}},
                    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
                }
            }
        },
    ),
    "GET /queue": everyone("GET /queue?id={comfy}"),
    "POST /queue": everyone("POST /queue", json={"delete": ["{comfy}"]}),
    "GET /history": everyone("GET /history?max_items=9"),
    "GET /history/{prompt_id}": everyone("GET /history/{comfy}"),
    "POST /history": everyone("POST /history", json={"delete": ["{comfy}"], "clear": True}),
    "POST /interrupt": everyone("POST /interrupt", json={"prompt_id": "{comfy}"}),
    "GET /object_info": everyone("GET /object_info"),
    "GET /object_info/{name}": everyone("GET /object_info/LoadImage"),
    "GET /models": everyone("GET /models"),
    "GET /models/{folder}": everyone("GET /models/checkpoints"),
    "GET /embeddings": everyone("GET /embeddings"),
    "GET /extensions": everyone("GET /extensions"),
    "GET /features": everyone("GET /features"),
    "GET /system_stats": everyone("GET /system_stats"),
    "POST /free": admins("POST /free"),
    "GET /experiment/models": everyone("GET /experiment/models"),
    "GET /experiment/models/{folder}": everyone("GET /experiment/models/checkpoints"),
    "GET /view_metadata/{folder}": everyone("GET /view_metadata/loras?filename=nobody", 404),
    "GET /users": everyone("GET /users"),
    "POST /users": everyone("POST /users", 403),
    "GET /settings": everyone("GET /settings"),
    "GET /settings/{id:path}": everyone("GET /settings/secret"),
    "POST /settings": everyone("POST /settings", json={"other": 1}),
    "POST /settings/{id:path}": everyone("POST /settings/other", json=1),
    "GET /userdata": everyone("GET /userdata?dir=.&full_info=true"),
    "GET /v2/userdata": everyone("GET /v2/userdata"),
    "GET /userdata/{file:path}": everyone("GET /userdata/secret.json", 404),
    "POST /userdata/{file:path}": everyone("POST /userdata/other.json", content=b"1"),
    "DELETE /userdata/{file:path}": everyone("DELETE /userdata/secret.json", 404),
    "GET /api/jobs": everyone("GET /api/jobs"),
    "GET /api/jobs/{prompt_id}": owner_row("GET /api/jobs/{comfy}", other=404),
    "POST /api/jobs/cancel": everyone("POST /api/jobs/cancel", json={"job_ids": ["{comfy}"]}),
    "POST /api/jobs/{prompt_id}/cancel": everyone("POST /api/jobs/{comfy}/cancel"),
    "GET /view": owner_row("GET /view?filename={image}"),
    "POST /upload/image": everyone("POST /upload/image", **PNG),
    "POST /upload/mask": owner_row("POST /upload/mask", **PNG, data={"original_ref": '{"filename": "{image}"}'}),
    # OpenAI, Gemini
    "POST /v1/images/generations": everyone("POST /v1/images/generations", 400, json=[]),
    "POST /v1/images/edits": everyone("POST /v1/images/edits", 400),
    "POST /v1/images/variations": everyone("POST /v1/images/variations", 400),
    "GET /v1/models": everyone("GET /v1/models"),
    "GET /v1/models/{name:path}": everyone("GET /v1/models/nobody", 404),
    "GET /v1/{path:path}": everyone("GET /v1/nothing", 404),
    "GET /openai/{path:path}": everyone("GET /openai/nothing", 404),
    "POST /v1beta/models/{model:path}:predict": everyone("POST /v1beta/models/nobody:predict", 400, json=[]),
    "POST /v1beta/models/{model:path}:generateContent": everyone(
        "POST /v1beta/models/nobody:generateContent", 400, json=[]
    ),
    "GET /v1beta/models": everyone("GET /v1beta/models"),
    "GET /v1beta/models/{name:path}": everyone("GET /v1beta/models/nobody", 404),
    "GET /v1beta/{path:path}": everyone("GET /v1beta/nothing", 404),
    "GET /v1beta1/{path:path}": everyone("GET /v1beta1/nothing", 404),
    "POST /v1beta/models/{model:path}:streamGenerateContent": everyone(
        "POST /v1beta/models/nobody:streamGenerateContent", 400, json=[]
    ),
    # Prometheus
    "GET /metrics": admins("GET /metrics"),
}  # fmt: skip
"""The routes of compatibility APIs and others that are not published, by method and path; one of several addresses of a route stands for all."""

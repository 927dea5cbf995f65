"""All database tables and indexes (SQLAlchemy Core).

Times are text, `YYYY-MM-DD HH:MM:SS.mmm` in UTC: they sort as text and are returned unchanged.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    literal_column,
    text,
)

from invokeclone.kit.sql.types import Flag, Key
from invokeclone.kit.sql.types import OrderedText as Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

app_state = Table(
    "app_state",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""Application state by key: `paused`, whether the embedded model was ever registered, reserved locations of images."""

users = Table(
    "users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("display_name", Text),
    Column("password_hash", Text, nullable=False, server_default=""),
    Column("is_admin", Flag, nullable=False, server_default=text("0")),
    Column("is_active", Flag, nullable=False, server_default=text("1")),
    Column("token_epoch", Integer, nullable=False, server_default=text("0")),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("last_login_at", Text),
)
"""Accounts. `system` owns all records of single-user mode."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("key_hash", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("last_used_at", Text),
)
"""API keys: the SHA-256 of the key in hexadecimal, and its first letters for recognition."""

user_quotas = Table(
    "user_quotas",
    metadata,
    Column("user_id", Text, ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Integer),
)
"""Quotas that differ from the settings, per user; a null value is no limit."""

worker_tokens = Table(
    "worker_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("last_used_at", Text),
)
"""Tokens of workers on other machines, stored as `api_keys` are; one without `expires_at` is valid until revoked."""

client_state = Table(
    "client_state",
    metadata,
    Column("user_id", Text, ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("updated_at", Text, nullable=False),
    Column("value", Text, nullable=False),
)
"""Client state: opaque texts by key, some of them megabytes long."""

comfyui_user_data = Table(
    "comfyui_user_data",
    metadata,
    Column("user_id", Text, ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
"""Files that ComfyUI's clients keep per user, such as workflows and settings; `path` is relative, with `/`."""

STATUSES = ("pending", "in_progress", "waiting", "completed", "failed", "canceled")

session_queue = Table(
    "session_queue",
    metadata,
    Column("item_id", Key, primary_key=True),
    Column("queue_id", Text, nullable=False),
    Column("batch_id", Text, nullable=False),
    Column("session_id", Text, nullable=False),  # a generated uuid; no query filters by it
    Column("status", Text, nullable=False, server_default="pending"),
    Column("status_sequence", Integer, nullable=False, server_default=text("0")),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("origin", Text),
    Column("destination", Text),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("device", Text),
    Column("field_values", Text),
    Column("error_type", Text),
    Column("error_message", Text),
    Column("error_traceback", Text),
    Column("retried_from_item_id", Key),
    Column("workflow_call_id", Text),
    Column("parent_item_id", Key),
    Column("parent_session_id", Text),
    Column("root_item_id", Key),
    Column("workflow_call_depth", Integer),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("started_at", Text),
    Column("completed_at", Text),
    Column("workflow", Text),
    Column("session", Text, nullable=False),  # near the end: columns after a long text are slow to read
    Column("graph_id", Key),
    Column("graph_values", Text),
    Column("worker_id", Text),
    Column("fence", Integer, nullable=False, server_default=text("0")),
    Column("lease_expires_at", Text),
    Column("interruptions", Integer, nullable=False, server_default=text("0")),
    CheckConstraint(f"status IN {STATUSES}", name="status"),
    sqlite_autoincrement=True,
)
"""Items of all queues; `workflow` and `field_values` are JSON text; `queue/sessions.py` describes how a session is
stored. A claim sets `worker_id` and `lease_expires_at` and increments `fence`; a result is stored only with the fence of
its claim. `interruptions` counts the claims whose worker died."""

session_graphs = Table(
    "session_graphs",
    metadata,
    Column("graph_id", Key, primary_key=True),
    Column("template", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""The graph of each batch, stored once, with placeholders for the values of its items; deleted with the last of them
(queue/bulk_counts.py)."""

queue_counts = Table(
    "queue_counts",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Number of items in each status, for the `queue` (name ''), each `batch` and each `destination` (none is '').
Maintained by a trigger on status changes of `session_queue` (0012) and, for insertions and deletions, by
queue/bulk_counts.py."""

Index(
    "ix_session_queue_order",  # order of all users' items
    session_queue.c.status,
    session_queue.c.priority.desc(),
    session_queue.c.item_id,
    session_queue.c.queue_id,
    session_queue.c.device,
    sqlite_where=session_queue.c.status == literal_column("'pending'"),
    postgresql_where=session_queue.c.status == literal_column("'pending'"),
)
Index(
    "ix_session_queue_busy",
    session_queue.c.status,
    session_queue.c.queue_id,
    sqlite_where=text("status = 'in_progress' OR status = 'waiting'"),
    postgresql_where=text("status = 'in_progress' OR status = 'waiting'"),
)
Index(
    "ix_session_queue_pending",  # order of each user's items
    session_queue.c.status,
    session_queue.c.user_id,
    session_queue.c.priority.desc(),
    session_queue.c.item_id,
    session_queue.c.device,
    sqlite_where=session_queue.c.status == literal_column("'pending'"),
    postgresql_where=session_queue.c.status == literal_column("'pending'"),
)
Index("ix_session_queue_created", session_queue.c.queue_id, session_queue.c.created_at.desc())
Index(
    "ix_session_queue_batch",
    session_queue.c.batch_id,
    session_queue.c.queue_id,
)
Index("ix_session_queue_destination", session_queue.c.queue_id, session_queue.c.destination)
Index(
    "ix_session_queue_served",
    session_queue.c.user_id,
    session_queue.c.started_at,
    sqlite_where=session_queue.c.started_at.is_not(None),
    postgresql_where=session_queue.c.started_at.is_not(None),
)
Index(
    "ix_session_queue_leases",
    session_queue.c.lease_expires_at,
    sqlite_where=session_queue.c.lease_expires_at.is_not(None),
    postgresql_where=session_queue.c.lease_expires_at.is_not(None),
)
Index(
    "ix_session_queue_calls",
    session_queue.c.parent_item_id,
    sqlite_where=session_queue.c.parent_item_id.is_not(None),
    postgresql_where=session_queue.c.parent_item_id.is_not(None),
)

boards = Table(
    "boards",
    metadata,
    Column("board_id", Text, primary_key=True),
    Column("board_name", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("cover_image_name", Text),
    Column("archived", Flag, nullable=False, server_default=text("0")),
    Column("board_visibility", Text, nullable=False, server_default="private"),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)
"""Boards. `cover_image_name` is the cover that a client last set; the displayed cover is computed."""

Index("ix_boards_created", boards.c.archived, boards.c.created_at, boards.c.board_id)

images = Table(
    "images",
    metadata,
    Column("image_id", Key, primary_key=True),
    Column("image_name", Text, nullable=False, unique=True),
    Column("image_origin", Text, nullable=False),
    Column("image_category", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("session_id", Text),
    Column("node_id", Text),
    Column("is_intermediate", Flag, nullable=False, server_default=text("0")),
    Column("starred", Flag, nullable=False, server_default=text("0")),
    Column("has_workflow", Flag, nullable=False, server_default=text("0")),
    Column("image_subfolder", Text, nullable=False, server_default=""),
    Column("board_id", Text, ForeignKey("boards.board_id", ondelete="SET NULL")),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("metadata", Text),  # last: columns after a long text are slow to read
    sqlite_autoincrement=True,
)
"""One row per image file; `metadata` is JSON text; an image is on at most one board, so the board is a column.

`image_id` is the row id in the text index (`images_text`, see migration 0005); clients use the name."""

# Lists are ordered starred first, then newest first; each index contains all columns that such a list filters and
# orders by, so that counting, skipping to a late page and listing all names do not read the rows.
_NEWEST = (images.c.starred.desc(), images.c.created_at.desc(), images.c.image_name.desc())
_LIST_COLUMNS = (images.c.is_intermediate, *_NEWEST, images.c.image_category)
_USER_OWNED = images.c.user_id != literal_column("'system'")
Index("ix_images_starred", *_NEWEST)
Index("ix_images_gallery", *_LIST_COLUMNS)
# Lists without starred first; read backwards for oldest first.
Index("ix_images_newest", images.c.is_intermediate, *_NEWEST[1:], images.c.image_category)
# Assets, which are fewer than general images: all, and those on no board.
Index(
    "ix_images_assets",
    *_LIST_COLUMNS,
    images.c.board_id,
    sqlite_where=images.c.image_category != literal_column("'general'"),
    postgresql_where=images.c.image_category != literal_column("'general'"),
)
Index("ix_images_board", images.c.board_id, *_LIST_COLUMNS)
# Images of a signed-in user; in single-user mode everything belongs to the system user, and these indexes are empty.
Index("ix_images_owned", images.c.user_id, *_LIST_COLUMNS, sqlite_where=_USER_OWNED, postgresql_where=_USER_OWNED)
Index(
    "ix_images_owned_board",
    images.c.user_id,
    images.c.board_id,
    *_LIST_COLUMNS,
    sqlite_where=_USER_OWNED,
    postgresql_where=_USER_OWNED,
)

comfyui_uploads = Table(
    "comfyui_uploads",
    metadata,
    Column("user_id", Text, ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True),
    Column("folder", Text, primary_key=True),
    Column("subfolder", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column(
        "image_name",
        Text,
        ForeignKey("images.image_name", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("content_hash", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)
"""The names under which ComfyUI's clients uploaded images: `folder` is input, output or temp; `content_hash` is the
SHA-256 of the uploaded file."""

image_counts = Table(
    "image_counts",
    metadata,
    Column("board_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("is_intermediate", Flag, primary_key=True),
    Column("image_category", Text, primary_key=True),
    Column("image_origin", Text, primary_key=True),
    Column("starred", Flag, primary_key=True),
    Column("number", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Number of images per combination of columns, maintained by triggers on `images` (migration 0005); no board is ''."""

image_move_jobs = Table(
    "image_move_jobs",
    metadata,
    Column("job_id", Key, primary_key=True),
    Column("state", Text, nullable=False),
    Column("error_message", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""Jobs that move all images to the subfolders of the current strategy."""

image_move_items = Table(
    "image_move_items",
    metadata,
    Column("image_name", Text, primary_key=True),
    Column("from_subfolder", Text, nullable=False),
    Column("to_subfolder", Text, nullable=False),
)
"""Images whose files are being moved, written before the files are touched, for recovery after a crash."""

videos = Table(
    "videos",
    metadata,
    Column("video_name", Text, primary_key=True),
    Column("video_origin", Text, nullable=False),
    Column("video_category", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("duration", Float, nullable=False),
    Column("fps", Float),
    Column("session_id", Text),
    Column("node_id", Text),
    Column("metadata", Text),
    Column("is_intermediate", Flag, nullable=False, server_default=text("0")),
    Column("starred", Flag, nullable=False, server_default=text("0")),
    Column("has_workflow", Flag, nullable=False, server_default=text("0")),
    Column("video_subfolder", Text, nullable=False, server_default=""),
    Column("board_id", Text, ForeignKey("boards.board_id", ondelete="SET NULL")),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("gallery_name", Text, Computed("'~' || video_name", persisted=False)),
)
"""One row per video file, as in `images`. `gallery_name` sorts as the name does, and after the name of every image:
images and videos are merged from their indexes in the order time, kind, name, without sorting."""

_VIDEO_LIST_COLUMNS = (
    videos.c.is_intermediate,
    videos.c.starred.desc(),
    videos.c.created_at.desc(),
    videos.c.gallery_name.desc(),
    videos.c.video_category,
)
_VIDEO_USER_OWNED = videos.c.user_id != literal_column("'system'")
Index("ix_videos_gallery", *_VIDEO_LIST_COLUMNS)
Index("ix_videos_board", videos.c.board_id, *_VIDEO_LIST_COLUMNS)
Index(
    "ix_videos_owned",
    videos.c.user_id,
    *_VIDEO_LIST_COLUMNS,
    sqlite_where=_VIDEO_USER_OWNED,
    postgresql_where=_VIDEO_USER_OWNED,
)
Index(
    "ix_videos_owned_board",
    videos.c.user_id,
    videos.c.board_id,
    *_VIDEO_LIST_COLUMNS,
    sqlite_where=_VIDEO_USER_OWNED,
    postgresql_where=_VIDEO_USER_OWNED,
)

day_counts = Table(
    "day_counts",
    metadata,
    Column("created_date", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Number of images and videos created on each day in UTC, without intermediates; maintained by triggers on both tables
(migration 0009)."""

models = Table(
    "models",
    metadata,
    Column("key", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("path", Text, nullable=False, unique=True),
    Column("file_size", Key, nullable=False, server_default=text("0")),
    Column("description", Text),
    Column("source", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)
"""One row per registered model; `config` is the whole record as JSON text, the other columns are for queries."""

Index("ix_models_name", models.c.base, models.c.type, models.c.name)

model_relationships = Table(
    "model_relationships",
    metadata,
    Column("model_key_1", Text, ForeignKey("models.key", ondelete="CASCADE"), primary_key=True),
    Column("model_key_2", Text, ForeignKey("models.key", ondelete="CASCADE"), primary_key=True),
    CheckConstraint("model_key_1 < model_key_2", name="order"),
)
"""Pairs of related models, each stored once."""

Index("ix_model_relationships_second", model_relationships.c.model_key_2)

workflows = Table(
    "workflows",
    metadata,
    Column("workflow_id", Text, primary_key=True),
    Column("category", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("is_public", Flag, nullable=False, server_default=text("0")),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("opened_at", Text),
    Column("thumbnail", Text),
    Column("call_reason", Text, nullable=False, server_default="unknown"),
    Column("call_message", Text),
    Column("judged_by", Text, nullable=False, server_default=""),
    Column("workflow", Text, nullable=False),  # last: columns after a long text are slow to read
)
"""The workflow library. `workflow` is JSON text; the first columns repeat parts of it for lists. `thumbnail` is a tag
that changes with the image. `call_*` says whether graphs may call it, according to the node vocabulary `judged_by`."""

Index("ix_workflows_listing", workflows.c.category, workflows.c.name, workflows.c.workflow_id)
Index("ix_workflows_judged", workflows.c.judged_by)

style_presets = Table(
    "style_presets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("positive_prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("is_public", Flag, nullable=False, server_default=text("0")),
    Column("image", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)
"""Prompt templates, a few dozen at most; `image` is a tag that changes with the image, null without one."""

system_prompts = Table(
    "system_prompts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default="system"),
    Column("is_public", Flag, nullable=False, server_default=text("0")),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)
"""System prompts for language models."""

model_installs = Table(
    "model_installs",
    metadata,
    Column("folder", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("stated", Text, nullable=False),
    Column("plan", Text),
    Column("paused", Flag, nullable=False, server_default=text("0")),
    Column("error", Text),
    Column("created_at", Text, nullable=False),
)
"""Unfinished installations from the web, resumed after a restart: the target folder in the models folder and the future
key of the model; source, stated fields and the list of files as JSON, without tokens."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("secret", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("failing_since", Text),
    Column("failing_periods", Integer, nullable=False, server_default=text("0")),
    Column("failing_period_at", Text),
    Column("disabled_at", Text),
    Column("disabled_reason", Text),
)
"""URLs that are notified of events of their owner's items. `events` is a JSON list of names; `failing_since` is the time
of the first failed attempt after the last successful one, `failing_periods` the number of periods (webhooks/store.py) since
then in which attempts have failed, and `failing_period_at` the start of the last of them."""

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("delivery_id", Text, primary_key=True),
    Column(
        "webhook_id",
        Text,
        ForeignKey("webhooks.webhook_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("event", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("failed_attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Text),
    Column("delivered_at", Text),
    Column("failed_at", Text),
    Column("response_status", Integer),
    Column("error", Text),
    Column("body", Text, nullable=False),  # last: columns after a long text are slow to read
)
"""Events for webhooks, written in the transaction of the event. An unfinished delivery is attempted when it is due; a
server that claims it postpones `due_at` to the end of its lease and increments `attempts`, the fence of its result. Attempts
that were interrupted are not among `failed_attempts`."""

Index("ix_webhook_deliveries_webhook", webhook_deliveries.c.webhook_id, webhook_deliveries.c.created_at)
Index(
    "ix_webhook_deliveries_pending",
    webhook_deliveries.c.webhook_id,
    webhook_deliveries.c.due_at,
    sqlite_where=webhook_deliveries.c.due_at.is_not(None),
    postgresql_where=webhook_deliveries.c.due_at.is_not(None),
)
Index("ix_webhook_deliveries_created", webhook_deliveries.c.created_at)

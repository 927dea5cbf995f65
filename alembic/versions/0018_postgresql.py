"""The history of PostgreSQL databases starts here, with the schema that the revisions before make in SQLite.

Differences: `queue_counts` has no primary key (its rows are summed, queue/bulk_counts.py), texts compare by code points,
and images are found by text through `images_trigrams` (images/lists/trigram_search.py).
"""

from sqlalchemy import text

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE app_state (
    key TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_app_state PRIMARY KEY (key)
);
CREATE TABLE boards (
    board_id TEXT COLLATE "C" NOT NULL,
    board_name TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    cover_image_name TEXT COLLATE "C",
    archived SMALLINT DEFAULT 0 NOT NULL,
    board_visibility TEXT COLLATE "C" DEFAULT 'private' NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_boards PRIMARY KEY (board_id)
);
CREATE INDEX ix_boards_created ON boards (archived, created_at, board_id);
CREATE TABLE day_counts (
    created_date TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    category TEXT COLLATE "C" NOT NULL,
    number INTEGER NOT NULL,
    CONSTRAINT pk_day_counts PRIMARY KEY (created_date, user_id, kind, category)
);
CREATE TABLE image_counts (
    board_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    is_intermediate SMALLINT NOT NULL,
    image_category TEXT COLLATE "C" NOT NULL,
    image_origin TEXT COLLATE "C" NOT NULL,
    starred SMALLINT NOT NULL,
    number INTEGER NOT NULL,
    CONSTRAINT pk_image_counts PRIMARY KEY (board_id, user_id, is_intermediate, image_category, image_origin, starred)
);
CREATE TABLE image_move_items (
    image_name TEXT COLLATE "C" NOT NULL,
    from_subfolder TEXT COLLATE "C" NOT NULL,
    to_subfolder TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_image_move_items PRIMARY KEY (image_name)
);
CREATE TABLE image_move_jobs (
    job_id BIGSERIAL NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    error_message TEXT COLLATE "C",
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_image_move_jobs PRIMARY KEY (job_id)
);
CREATE TABLE model_installs (
    folder TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    stated TEXT COLLATE "C" NOT NULL,
    plan TEXT COLLATE "C",
    paused SMALLINT DEFAULT 0 NOT NULL,
    error TEXT COLLATE "C",
    created_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_model_installs PRIMARY KEY (folder)
);
CREATE TABLE models (
    key TEXT COLLATE "C" NOT NULL,
    hash TEXT COLLATE "C" NOT NULL,
    base TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    format TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    file_size BIGINT DEFAULT 0 NOT NULL,
    description TEXT COLLATE "C",
    source TEXT COLLATE "C" NOT NULL,
    config TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_models PRIMARY KEY (key),
    CONSTRAINT uq_models_path UNIQUE (path)
);
CREATE INDEX ix_models_name ON models (base, type, name);
CREATE TABLE queue_counts (
    queue_id TEXT COLLATE "C" NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    number INTEGER NOT NULL
);
CREATE TABLE session_graphs (
    graph_id BIGSERIAL NOT NULL,
    template TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_session_graphs PRIMARY KEY (graph_id)
);
CREATE TABLE session_queue (
    item_id BIGSERIAL NOT NULL,
    queue_id TEXT COLLATE "C" NOT NULL,
    batch_id TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" DEFAULT 'pending' NOT NULL,
    status_sequence INTEGER DEFAULT 0 NOT NULL,
    priority INTEGER DEFAULT 0 NOT NULL,
    origin TEXT COLLATE "C",
    destination TEXT COLLATE "C",
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    device TEXT COLLATE "C",
    field_values TEXT COLLATE "C",
    error_type TEXT COLLATE "C",
    error_message TEXT COLLATE "C",
    error_traceback TEXT COLLATE "C",
    retried_from_item_id BIGINT,
    workflow_call_id TEXT COLLATE "C",
    parent_item_id BIGINT,
    parent_session_id TEXT COLLATE "C",
    root_item_id BIGINT,
    workflow_call_depth INTEGER,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    started_at TEXT COLLATE "C",
    completed_at TEXT COLLATE "C",
    workflow TEXT COLLATE "C",
    session TEXT COLLATE "C" NOT NULL,
    graph_id BIGINT,
    graph_values TEXT COLLATE "C",
    CONSTRAINT pk_session_queue PRIMARY KEY (item_id),
    CONSTRAINT ck_session_queue_status CHECK (status IN ('pending', 'in_progress', 'waiting', 'completed', 'failed', 'canceled'))
);
CREATE INDEX ix_session_queue_batch ON session_queue (batch_id, queue_id);
CREATE INDEX ix_session_queue_busy ON session_queue (status, queue_id) WHERE status = 'in_progress' OR status = 'waiting';
CREATE INDEX ix_session_queue_calls ON session_queue (parent_item_id) WHERE parent_item_id IS NOT NULL;
CREATE INDEX ix_session_queue_created ON session_queue (queue_id, created_at DESC);
CREATE INDEX ix_session_queue_destination ON session_queue (queue_id, destination);
CREATE INDEX ix_session_queue_order ON session_queue (status, priority DESC, item_id, queue_id, device) WHERE status = 'pending';
CREATE INDEX ix_session_queue_pending ON session_queue (status, user_id, priority DESC, item_id, device) WHERE status = 'pending';
CREATE INDEX ix_session_queue_served ON session_queue (user_id, started_at) WHERE started_at IS NOT NULL;
CREATE TABLE style_presets (
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    positive_prompt TEXT COLLATE "C" NOT NULL,
    negative_prompt TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    is_public SMALLINT DEFAULT 0 NOT NULL,
    image TEXT COLLATE "C",
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_style_presets PRIMARY KEY (id)
);
CREATE TABLE system_prompts (
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    content TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    is_public SMALLINT DEFAULT 0 NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_system_prompts PRIMARY KEY (id)
);
CREATE TABLE users (
    user_id TEXT COLLATE "C" NOT NULL,
    email TEXT COLLATE "C" NOT NULL,
    display_name TEXT COLLATE "C",
    password_hash TEXT COLLATE "C" DEFAULT '' NOT NULL,
    is_admin SMALLINT DEFAULT 0 NOT NULL,
    is_active SMALLINT DEFAULT 1 NOT NULL,
    token_epoch INTEGER DEFAULT 0 NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    last_login_at TEXT COLLATE "C",
    CONSTRAINT pk_users PRIMARY KEY (user_id),
    CONSTRAINT uq_users_email UNIQUE (email)
);
CREATE TABLE workflows (
    workflow_id TEXT COLLATE "C" NOT NULL,
    category TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    is_public SMALLINT DEFAULT 0 NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    opened_at TEXT COLLATE "C",
    thumbnail TEXT COLLATE "C",
    call_reason TEXT COLLATE "C" DEFAULT 'unknown' NOT NULL,
    call_message TEXT COLLATE "C",
    judged_by TEXT COLLATE "C" DEFAULT '' NOT NULL,
    workflow TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_workflows PRIMARY KEY (workflow_id)
);
CREATE INDEX ix_workflows_judged ON workflows (judged_by);
CREATE INDEX ix_workflows_listing ON workflows (category, name, workflow_id);
CREATE TABLE api_keys (
    id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    key_hash TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    last_used_at TEXT COLLATE "C",
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT fk_api_keys_user_id FOREIGN KEY(user_id) REFERENCES users (user_id) ON DELETE CASCADE,
    CONSTRAINT uq_api_keys_key_hash UNIQUE (key_hash)
);
CREATE INDEX ix_api_keys_user_id ON api_keys (user_id);
CREATE TABLE client_state (
    user_id TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_client_state PRIMARY KEY (user_id, key),
    CONSTRAINT fk_client_state_user_id FOREIGN KEY(user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
CREATE TABLE comfyui_user_data (
    user_id TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    content BYTEA NOT NULL,
    CONSTRAINT pk_comfyui_user_data PRIMARY KEY (user_id, path),
    CONSTRAINT fk_comfyui_user_data_user_id FOREIGN KEY(user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
CREATE TABLE images (
    image_id BIGSERIAL NOT NULL,
    image_name TEXT COLLATE "C" NOT NULL,
    image_origin TEXT COLLATE "C" NOT NULL,
    image_category TEXT COLLATE "C" NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    session_id TEXT COLLATE "C",
    node_id TEXT COLLATE "C",
    is_intermediate SMALLINT DEFAULT 0 NOT NULL,
    starred SMALLINT DEFAULT 0 NOT NULL,
    has_workflow SMALLINT DEFAULT 0 NOT NULL,
    image_subfolder TEXT COLLATE "C" DEFAULT '' NOT NULL,
    board_id TEXT COLLATE "C",
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    metadata TEXT COLLATE "C",
    CONSTRAINT pk_images PRIMARY KEY (image_id),
    CONSTRAINT uq_images_image_name UNIQUE (image_name),
    CONSTRAINT fk_images_board_id FOREIGN KEY(board_id) REFERENCES boards (board_id) ON DELETE SET NULL
);
CREATE INDEX ix_images_assets ON images (is_intermediate, starred DESC, created_at DESC, image_name DESC, image_category, board_id) WHERE image_category != 'general';
CREATE INDEX ix_images_board ON images (board_id, is_intermediate, starred DESC, created_at DESC, image_name DESC, image_category);
CREATE INDEX ix_images_gallery ON images (is_intermediate, starred DESC, created_at DESC, image_name DESC, image_category);
CREATE INDEX ix_images_newest ON images (is_intermediate, created_at DESC, image_name DESC, image_category);
CREATE INDEX ix_images_owned ON images (user_id, is_intermediate, starred DESC, created_at DESC, image_name DESC, image_category) WHERE user_id != 'system';
CREATE INDEX ix_images_owned_board ON images (user_id, board_id, is_intermediate, starred DESC, created_at DESC, image_name DESC, image_category) WHERE user_id != 'system';
CREATE INDEX ix_images_starred ON images (starred DESC, created_at DESC, image_name DESC);
CREATE TABLE model_relationships (
    model_key_1 TEXT COLLATE "C" NOT NULL,
    model_key_2 TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_model_relationships PRIMARY KEY (model_key_1, model_key_2),
    CONSTRAINT ck_model_relationships_order CHECK (model_key_1 < model_key_2),
    CONSTRAINT fk_model_relationships_model_key_1 FOREIGN KEY(model_key_1) REFERENCES models (key) ON DELETE CASCADE,
    CONSTRAINT fk_model_relationships_model_key_2 FOREIGN KEY(model_key_2) REFERENCES models (key) ON DELETE CASCADE
);
CREATE INDEX ix_model_relationships_second ON model_relationships (model_key_2);
CREATE TABLE videos (
    video_name TEXT COLLATE "C" NOT NULL,
    video_origin TEXT COLLATE "C" NOT NULL,
    video_category TEXT COLLATE "C" NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    duration FLOAT NOT NULL,
    fps FLOAT,
    session_id TEXT COLLATE "C",
    node_id TEXT COLLATE "C",
    metadata TEXT COLLATE "C",
    is_intermediate SMALLINT DEFAULT 0 NOT NULL,
    starred SMALLINT DEFAULT 0 NOT NULL,
    has_workflow SMALLINT DEFAULT 0 NOT NULL,
    video_subfolder TEXT COLLATE "C" DEFAULT '' NOT NULL,
    board_id TEXT COLLATE "C",
    user_id TEXT COLLATE "C" DEFAULT 'system' NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    gallery_name TEXT COLLATE "C" GENERATED ALWAYS AS ('~' || video_name) STORED,
    CONSTRAINT pk_videos PRIMARY KEY (video_name),
    CONSTRAINT fk_videos_board_id FOREIGN KEY(board_id) REFERENCES boards (board_id) ON DELETE SET NULL
);
CREATE INDEX ix_videos_board ON videos (board_id, is_intermediate, starred DESC, created_at DESC, gallery_name DESC, video_category);
CREATE INDEX ix_videos_gallery ON videos (is_intermediate, starred DESC, created_at DESC, gallery_name DESC, video_category);
CREATE INDEX ix_videos_owned ON videos (user_id, is_intermediate, starred DESC, created_at DESC, gallery_name DESC, video_category) WHERE user_id != 'system';
CREATE INDEX ix_videos_owned_board ON videos (user_id, board_id, is_intermediate, starred DESC, created_at DESC, gallery_name DESC, video_category) WHERE user_id != 'system';
CREATE TABLE comfyui_uploads (
    user_id TEXT COLLATE "C" NOT NULL,
    folder TEXT COLLATE "C" NOT NULL,
    subfolder TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    image_name TEXT COLLATE "C" NOT NULL,
    content_hash TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    CONSTRAINT pk_comfyui_uploads PRIMARY KEY (user_id, folder, subfolder, name),
    CONSTRAINT fk_comfyui_uploads_user_id FOREIGN KEY(user_id) REFERENCES users (user_id) ON DELETE CASCADE,
    CONSTRAINT fk_comfyui_uploads_image_name FOREIGN KEY(image_name) REFERENCES images (image_name) ON DELETE CASCADE
);
CREATE INDEX ix_comfyui_uploads_image_name ON comfyui_uploads (image_name);
"""

CASE_COLLATIONS = ("pg_c_utf8", "und-x-icu", "C.utf8", "C.UTF-8")
"""Collations whose `lower` folds letters of every script, the first that the server has is used."""

FUNCTIONS = r"""
CREATE FUNCTION invokeclone_casefold(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT replace(replace(lower(value {collation}), 'ß', 'ss'), 'ς', 'σ')
$$;
CREATE FUNCTION invokeclone_unescape(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part text;
    digits text;
    code int;
    high int := 0;
    result text;
BEGIN
    IF value IS NULL OR strpos(value, '\u') = 0 THEN
        RETURN value;
    END IF;
    FOREACH part IN ARRAY string_to_array(value, '\u') LOOP
        digits := left(part, 4);
        IF result IS NULL THEN
            result := part;
        ELSIF digits !~ '^[0-9a-fA-F]{{4}}$' THEN
            result := result || '\u' || part;
        ELSE
            code := ('x' || lpad(digits, 8, '0'))::bit(32)::int;
            IF code BETWEEN 55296 AND 56319 THEN
                high := code;
                code := 0;
            ELSIF code BETWEEN 56320 AND 57343 THEN
                code := CASE WHEN high = 0 THEN 65533 ELSE 65536 + (high - 55296) * 1024 + code - 56320 END;
                high := 0;
            END IF;
            IF code > 0 THEN
                result := result || chr(code);
            END IF;
            result := result || substr(part, 5);
        END IF;
    END LOOP;
    RETURN result;
END
$$;
CREATE FUNCTION invokeclone_trigrams(value text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(DISTINCT (first || second || third) COLLATE "C"), '{{}}') FROM (
        SELECT letter AS first, lead(letter, 1) OVER following AS second, lead(letter, 2) OVER following AS third
        FROM unnest(string_to_array(value, NULL)) WITH ORDINALITY AS letters (letter, place)
        WINDOW following AS (ORDER BY place)
    ) AS sequences WHERE third IS NOT NULL
$$;
CREATE FUNCTION images_recount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE image_counts SET number = number - 1
        WHERE (user_id, board_id, is_intermediate, image_category, image_origin, starred)
            = (old.user_id, coalesce(old.board_id, ''), old.is_intermediate, old.image_category, old.image_origin, old.starred);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO image_counts (user_id, board_id, is_intermediate, image_category, image_origin, starred, number)
        VALUES (new.user_id, coalesce(new.board_id, ''), new.is_intermediate, new.image_category, new.image_origin, new.starred, 1)
        ON CONFLICT (board_id, user_id, is_intermediate, image_category, image_origin, starred)
        DO UPDATE SET number = image_counts.number + 1;
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION images_index_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO images_trigrams (image_id, trigrams) VALUES (new.image_id, invokeclone_trigrams(
        invokeclone_casefold(coalesce(invokeclone_unescape(new.metadata), '') || ' ' || new.created_at)
    )) ON CONFLICT (image_id) DO UPDATE SET trigrams = excluded.trigrams;
    RETURN NULL;
END
$$;
CREATE FUNCTION media_of_day_recount() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    media text := TG_ARGV[0];
    category_column text := TG_ARGV[0] || '_category';
BEGIN
    IF TG_OP <> 'INSERT' AND old.is_intermediate = 0 THEN
        UPDATE day_counts SET number = number - 1 WHERE created_date = left(old.created_at, 10)
            AND user_id = old.user_id AND kind = media AND day_counts.category = to_jsonb(old) ->> category_column;
    END IF;
    IF TG_OP <> 'DELETE' AND new.is_intermediate = 0 THEN
        INSERT INTO day_counts (created_date, user_id, kind, category, number)
        VALUES (left(new.created_at, 10), new.user_id, media, to_jsonb(new) ->> category_column, 1)
        ON CONFLICT (created_date, user_id, kind, category) DO UPDATE SET number = day_counts.number + 1;
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION session_queue_recount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM app_state WHERE key = 'queue_counted_apart') THEN
        RETURN NULL;
    END IF;
    INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number) VALUES
        (old.queue_id, 'queue', '', old.user_id, old.status, -1),
        (old.queue_id, 'batch', old.batch_id, old.user_id, old.status, -1),
        (old.queue_id, 'destination', coalesce(old.destination, ''), old.user_id, old.status, -1),
        (new.queue_id, 'queue', '', new.user_id, new.status, 1),
        (new.queue_id, 'batch', new.batch_id, new.user_id, new.status, 1),
        (new.queue_id, 'destination', coalesce(new.destination, ''), new.user_id, new.status, 1);
    RETURN NULL;
END
$$;
"""

TRIGGERS = """
CREATE TABLE images_trigrams (
    image_id bigint NOT NULL,
    trigrams text[] NOT NULL,
    CONSTRAINT pk_images_trigrams PRIMARY KEY (image_id),
    CONSTRAINT fk_images_trigrams_image_id FOREIGN KEY (image_id) REFERENCES images (image_id) ON DELETE CASCADE
);
CREATE INDEX ix_images_trigrams ON images_trigrams USING gin (trigrams);
CREATE INDEX ix_queue_counts ON queue_counts (queue_id, scope, name, user_id, status);
CREATE TRIGGER images_counted AFTER INSERT OR DELETE ON images FOR EACH ROW EXECUTE FUNCTION images_recount();
CREATE TRIGGER images_recounted AFTER UPDATE OF user_id, board_id, is_intermediate, image_category, image_origin, starred
    ON images FOR EACH ROW EXECUTE FUNCTION images_recount();
CREATE TRIGGER images_text_indexed AFTER INSERT OR UPDATE OF metadata, created_at ON images
    FOR EACH ROW EXECUTE FUNCTION images_index_text();
CREATE TRIGGER images_of_day_counted AFTER INSERT OR DELETE ON images
    FOR EACH ROW EXECUTE FUNCTION media_of_day_recount('image');
CREATE TRIGGER images_of_day_changed AFTER UPDATE OF is_intermediate, image_category, user_id, created_at ON images
    FOR EACH ROW EXECUTE FUNCTION media_of_day_recount('image');
CREATE TRIGGER videos_of_day_counted AFTER INSERT OR DELETE ON videos
    FOR EACH ROW EXECUTE FUNCTION media_of_day_recount('video');
CREATE TRIGGER videos_of_day_changed AFTER UPDATE OF is_intermediate, video_category, user_id, created_at ON videos
    FOR EACH ROW EXECUTE FUNCTION media_of_day_recount('video');
CREATE TRIGGER session_queue_recounted AFTER UPDATE OF queue_id, batch_id, destination, user_id, status ON session_queue
    FOR EACH ROW WHEN (old.status IS DISTINCT FROM new.status OR old.user_id IS DISTINCT FROM new.user_id
        OR old.queue_id IS DISTINCT FROM new.queue_id OR old.batch_id IS DISTINCT FROM new.batch_id
        OR old.destination IS DISTINCT FROM new.destination)
    EXECUTE FUNCTION session_queue_recount();
"""


def upgrade() -> None:
    """Create the schema of a new PostgreSQL database; change nothing in SQLite."""
    if op.get_bind().dialect.name != "postgresql":
        return
    _run(TABLES)
    present = {row[0] for row in op.get_bind().execute(text("SELECT collname FROM pg_collation"))}
    name = next((name for name in CASE_COLLATIONS if name in present), None)
    functions = FUNCTIONS.format(collation=f'COLLATE "{name}"' if name else "")
    for function in functions.split("$$;\n")[:-1]:
        op.get_bind().exec_driver_sql(f"{function}$$")
    _run(TRIGGERS)
    op.get_bind().exec_driver_sql(
        "INSERT INTO users (user_id, email, display_name, is_admin, created_at, updated_at) VALUES "
        "('system', 'system@system.invokeai', 'System', 1, '2024-01-01 00:00:00.000', '2024-01-01 00:00:00.000')"
    )


def _run(statements: str) -> None:
    for statement in statements.split(";\n")[:-1]:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """Change nothing in SQLite."""
    if op.get_bind().dialect.name == "postgresql":
        raise NotImplementedError("there is no earlier revision of PostgreSQL databases: drop the database")

"""Dangerous calls have one place each: files that users name, images, pickles, the network, other processes.

Each table says which modules may do it and why; a new place is either a mistake or a line here.
"""

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import invokeclone
from invokeclone.graph.invocations import registry

PACKAGE = Path(invokeclone.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def all_nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def name(node: ast.expr) -> str:
    """Return the dotted name of an expression: `Image.open`, or `.open` for one of something that has none."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


@cache
def calls(path: Path) -> tuple[tuple[str, ast.Call], ...]:
    return tuple((name(node.func), node) for node in all_nodes(path) if isinstance(node, ast.Call))


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, at any place, and names imported from them as `module.name`."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    types = [node for node in all_nodes(path) if isinstance(node, ast.If) and name(node.test) == "TYPE_CHECKING"]
    unused = {id(inner) for block in types for inner in ast.walk(block)}
    for node in all_nodes(path):
        if id(node) in unused:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and name(node.func) in {
            "importlib.import_module",
            "import_module",
            "__import__",
        }:
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def modules_where(predicate: Callable[[Path], bool]) -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for path in SOURCES if predicate(path)}


# Images

OPENERS = {
    "Image.open",
    "PIL.Image.open",
    "ImageFile.Parser",
    "Image.core.open",
    "imageio.imread",
    "cv2.imread",
    "cv2.imdecode",
}


def test_images_are_opened_in_one_module() -> None:
    assert modules_where(lambda path: any(called in OPENERS for called, _ in calls(path))) == {
        "kit/files/image_files.py"
    }


def test_image_modes_are_converted_in_one_module() -> None:
    """Pillow's own conversion clips deep images; `conversion.convert` converts models."""

    def converts(path: Path) -> bool:
        return any(
            isinstance(node.func, ast.Attribute) and node.func.attr == "convert" and called != "conversion.convert"
            for called, node in calls(path)
        )

    assert modules_where(converts) == {"kit/files/image_modes.py"}


def test_images_are_rotated_in_one_module() -> None:
    ways = {"ImageOps.exif_transpose", "exif_transpose", "image.getexif"}
    modules = modules_where(lambda path: any(called in ways for called, _ in calls(path)))
    assert modules == {"kit/files/image_modes.py", "shims/automatic1111/infotext.py"}  # the latter reads a comment


# Pickles and code that comes with a model

PICKLES = {
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "joblib.load",
    "dill.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
}


def test_only_the_strict_reader_unpickles() -> None:
    assert modules_where(lambda path: any(called in PICKLES for called, _ in calls(path))) == set()
    readers = modules_where(lambda path: "pickle" in set(imports(path)))
    assert readers == {"models/files/pickles.py", "models/files/unpickler.py"}


def test_numpy_files_are_read_without_pickle() -> None:
    for path in SOURCES:
        for called, node in calls(path):
            assert not any(word.arg == "allow_pickle" for word in node.keywords), path
            assert called not in {"np.load", "numpy.load"}, path


MAY_RUN_CODE = {"eval", "exec", "os.system", "os.popen", "runpy.run_path", "runpy.run_module"}


def test_only_node_annotations_are_evaluated() -> None:
    modules = modules_where(lambda path: any(called in MAY_RUN_CODE for called, _ in calls(path)))
    assert modules == {"graph/invocations/invocation.py"}


def test_models_are_loaded_from_local_folder_views_only() -> None:
    """`from_pretrained` is called in one module, with local files only, and no argument lets a model bring code."""
    modules = modules_where(lambda path: any(called.endswith("from_pretrained") for called, _ in calls(path)))
    assert modules == {"engine/loading/folders.py"}
    for called, node in calls(PACKAGE / "engine" / "loading" / "folders.py"):
        if called.endswith("from_pretrained"):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert words.get("local_files_only") == "True" or "state_dict" in words, ast.unparse(node)
    for path in SOURCES:
        for called, node in calls(path):
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert words.get("trust_remote_code", "False") == "False", path
            assert "custom_pipeline" not in words, path
            if called.endswith("from_single_file"):
                assert words.get("local_files_only") == "True", ast.unparse(node)


# The network

NETWORK = ("aiohttp", "httpx", "requests", "urllib3", "urllib.request", "http.client", "ftplib", "smtplib", "socket", "ssl", "huggingface_hub", "websockets", "websocket", "socketio.Client", "socketio.AsyncClient", "asyncio.open_connection", "xmlrpc", "git", "paramiko", "obstore")  # fmt: skip
CONNECTING = {"asyncio.open_connection", "asyncio.open_unix_connection"}
MAY_USE_THE_NETWORK = {
    "downloads/web.py": "the way out: addresses checked, proxy, tokens, limits",
    "downloads/proxy.py": "the part of the way out that leads through the proxy; asks for the addresses of names",
    "cli/serve.py": "listens; opens no connection",
    "server/http/origins.py": "asks for this machine's names; opens no connection",
    "server/http/websocket_protocol.py": "the server's end of websockets; opens no connection",
    "server/joined/agent.py": "a joined worker's websocket to the server that its operator names",
    "worker/backend/http.py": "files between a joined worker and that server",
    "server/joined/address.py": "looks up the name of the server that the operator names; opens no connection",
    "cluster/ray_engine.py": "the Ray cluster that the operator names, through Ray",
    "kit/storage/s3.py": "the S3 service that the operator's settings name",
    "models/install/sources/hub.py": "checks names and makes addresses with huggingface_hub; opens no connection",
}
OFFLINE = {"errors.HFValidationError", "utils.validate_repo_id", "hf_hub_url"}
"""What may be imported from huggingface_hub: names that touch no network."""


def test_only_listed_modules_use_the_network() -> None:
    def goes_out(path: Path) -> bool:
        modules = set(imports(path))
        named = any(module == library or module.startswith(f"{library}.") for module in modules for library in NETWORK)
        return named or any(called in CONNECTING or called.endswith(".create_connection") for called, _ in calls(path))

    assert modules_where(goes_out) == set(MAY_USE_THE_NETWORK)


def test_the_hugging_face_client_is_not_used() -> None:
    library = "huggingface_hub"
    names = {name for path in SOURCES for name in imports(path) if name.startswith(library)}
    assert names - {library, f"{library}.errors", f"{library}.utils"} == {f"{library}.{name}" for name in OFFLINE}


STARTS = (
    "subprocess",
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "os.exec",
    "os.spawn",
    "pty",
)
MAY_START_PROCESSES = {
    "cli/webui.py": "pip, which fetches the web UI's package when the operator asks for it at the command line",
    "cluster/ray_engine.py": "Ray's own command, which tells whether the cluster demands a token",
    "custom_nodes/sources.py": "git, behind the gateway",
    "custom_nodes/inspection.py": "Python, which describes packs",
    "images/videos/uploads.py": "Python, which looks into videos",
    "server/supervision/hardware.py": "the command of NVIDIA's driver, which names the devices",
    "server/supervision/link.py": "the workers",
    "utilities/prompts.py": "Python, which expands prompts",
}


def test_only_listed_modules_start_processes_without_a_shell() -> None:
    def starts(path: Path) -> bool:
        named = any(module == "subprocess" for module in imports(path))
        return named or any(called.startswith(STARTS) for called, _ in calls(path))

    assert modules_where(starts) <= set(MAY_START_PROCESSES) | {"kit/process/child_process.py"}
    for path in SOURCES:
        for called, node in calls(path):
            assert called != "asyncio.create_subprocess_shell", path
            assert not any(word.arg == "shell" for word in node.keywords), path


def programs() -> set[str]:
    """Return our modules that other modules start as programs, by `python -m`."""
    names = set()
    for path in SOURCES:
        for node in all_nodes(path):
            if isinstance(node, ast.Tuple | ast.List | ast.Call):
                words = [
                    part.value if isinstance(part, ast.Constant) else None
                    for part in (node.args if isinstance(node, ast.Call) else node.elts)
                ]
                names |= {str(after) for word, after in itertools.pairwise(words) if word == "-m"}
    return {program for program in names if program.startswith("invokeclone")}


def test_each_entry_point_ends_with_its_parent() -> None:
    entry_points = programs()
    assert len(entry_points) == 4
    for program in entry_points:
        path = PACKAGE.parent.joinpath(*program.split("."))
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert "end_with_parent" in {called for called, _ in calls(path)}, path


# Files that users name

NODE_FILES = [path for path in SOURCES if "nodes" in path.relative_to(PACKAGE).parts[:3]]
OPENING = re.compile(r"(^|\.)(open|read_text|read_bytes|write_text|write_bytes|iterdir|glob|rglob|unlink|rmtree|load_file|load_local_model|load_remote_model|download_and_cache_model|fromfile|loadtxt|imread|open_text|write_file)$")  # fmt: skip
PATHS = re.compile(r"^(Path|PurePath|pathlib\.Path|os\.(open|listdir|scandir|remove|stat|path\.exists))$")
MAY_TOUCH_FILES = {
    "nodes/data/prompts.py": {"context.config.open_text"},
    "nodes/images/export.py": {"write_file", "Path"},
}
"""Of the nodes: which calls on files each module may make; `export` writes only into the outputs (`safe_join`)."""


def test_nodes_access_files_only_through_the_context() -> None:
    assert len(NODE_FILES) > 30
    accesses: dict[str, set[str]] = {}
    for path in NODE_FILES:
        touched = {called for called, _ in calls(path) if OPENING.search(called) or PATHS.match(called)}
        if touched:
            accesses[path.relative_to(PACKAGE).as_posix()] = touched
    assert accesses == MAY_TOUCH_FILES


SUSPECT = re.compile(r"(?i)path|file|folder|directory|\burl\b|\burls\b|uri|address|\bhost\b")
REVIEWED = {
    ("prompt_from_file", "file_path"): "read by context.config.open_text",
    ("save_image_to_file", "output_directory"): "inside of the outputs by safe_join, not in the server's own folders",
    ("save_image_to_file", "prefix"): "no separators",
    ("save_image_to_file", "suffix"): "no separators",
    ("save_image_to_file", "file_format"): "one of three words",
}


def test_every_field_that_may_hold_a_path_or_url_is_reviewed() -> None:
    registry.discover()
    node_fields = {
        (node_type, field)
        for node_type, cls in registry.nodes().items()
        if cls.__module__.startswith("invokeclone.")
        for field, info in cls.model_fields.items()
        if "str" in str(info.annotation) and SUSPECT.search(f"{field} {info.description or ''}")
    }
    assert node_fields - set(REVIEWED) == set()
    assert ("prompt_from_file", "file_path") in node_fields


@pytest.mark.parametrize("table", [MAY_USE_THE_NETWORK, MAY_START_PROCESSES, MAY_TOUCH_FILES])
def test_tables_name_existing_modules(table: dict[str, object]) -> None:
    assert [module for module in table if not (PACKAGE / module).is_file()] == []


# JSON

READ_JSON = {"json.loads", "json.load", "orjson.loads", "from_json", "pydantic_core.from_json"}
MAY_READ_JSON = {
    "kit/json_text.py": "the one rule for JSON of clients",
    "boards/store.py": "rows of the database",
    "boards/virtual.py": "rows of the database",
    "custom_nodes/inspection.py": "the line of a process of this server",
    "custom_nodes/workflows.py": "files of packs that an administrator installed",
    "images/intent_log.py": "files that this server wrote",
    "images/reservations.py": "rows of the database",
    "images/videos/uploads.py": "the line of a process of this server",
    "images/videos/service.py": "files that this server wrote",
    "kit/files/root_lock.py": "the file of the root's lock",
    "presets/prompts.py": "rows of the database",
    "presets/service.py": "rows of the database",
    "queue/bulk.py": "rows of the database",
    "images/lists/trigram_search.py": "its own queries of the text index",
    "queue/calls/chain.py": "rows of the database",
    "queue/counts.py": "rows of the database",
    "queue/outbox.py": "rows of the database",
    "server/supervision/link.py": "the line of a worker",
    "shims/comfyui/history.py": "rows of the database",
    "shims/comfyui/jobs.py": "rows of the database",
    "shims/comfyui/record.py": "rows of the database",
    "shims/comfyui/store.py": "rows of the database",
    "shims/automatic1111/options.py": "rows of the database",
    "users/quotas.py": "rows of the database",
    "webhooks/outbox.py": "rows of the database",
    "webhooks/store.py": "rows of the database",
    "kit/sql/copy_database.py": "the progress that an interrupted copy stored in its target",
    "server/joined/calls.py": "sessions of joined workers, which become text of a row",
    "server/joined/protocol.py": "messages of joined workers; a model each, of limited size",
    "server/joined/service.py": "messages of joined workers; a model each, of limited size",
    "server/peers/events.py": "events of other servers on the same database",
    "server/peers/hints.py": "ids that other servers on the same database send",
    "utilities/expander.py": "the line of the server, in a process of its own",
    "workflows/generators.py": "a separator between quotes, which is looked for and not stored",
    "workflows/service.py": "rows of the database and files of this package",
}
NO_CLIENTS = ("cli/", "components/", "downloads/", "engine/", "families/", "worker/", "models/")
"""Packages that read files of models, or what the server wrote."""


def test_only_listed_modules_parse_client_json() -> None:
    def reads(path: Path) -> bool:
        return any(called in READ_JSON or called.endswith("validate_json") for called, _ in calls(path))

    modules = {module for module in modules_where(reads) if not module.startswith(NO_CLIENTS)}
    assert modules == MAY_READ_JSON.keys()


# Leaving the event loop

MAY_USE_THREADS = {
    "kit/sql/sqlite_database.py": "threads of the database",
    "kit/sql/migrations.py": "Alembic is synchronous: SQLAlchemy runs it beside the event loop over an asynchronous connection",
    "cluster/ray_engine.py": "calls of Ray, in a command of its own",
    "kit/process/offload.py": "the one way off the event loop",
    "users/passwords.py": "threads of their own: hashing must not hold up other work",
    "worker/loop.py": "the node thread",
}


def test_only_listed_modules_use_threads() -> None:
    ways = ("to_thread", "run_in_threadpool", "run_sync", "run_in_executor")

    def leaves(path: Path) -> bool:
        return any(called.split(".")[-1] in ways for called, _ in calls(path))

    assert modules_where(leaves) == MAY_USE_THREADS.keys()


CONNECTIONS = {"AsyncConnection", "Read", "Write", "Changes"}
LEAVES_THE_LOOP = {"in_thread", "in_storage_thread", "off_loop", "run_to_completion", "sleep"}


def test_functions_that_get_a_connection_do_not_leave_the_event_loop() -> None:
    """Their transaction is open meanwhile; tests/open_transactions.py checks at run time what they call."""
    found = []
    for path in SOURCES:
        for node in all_nodes(path):
            if not isinstance(node, ast.AsyncFunctionDef) or path.is_relative_to(PACKAGE / "kit" / "sql"):
                continue
            arguments = [*node.args.args, *node.args.kwonlyargs]
            if CONNECTIONS & {name(argument.annotation) for argument in arguments if argument.annotation is not None}:
                called = {name(inner.func).split(".")[-1] for inner in ast.walk(node) if isinstance(inner, ast.Call)}
                found += [f"{path.relative_to(PACKAGE)}: {node.name}"] if called & LEAVES_THE_LOOP else []
    assert found == []

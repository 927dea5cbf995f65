"""Examples of the documents run as they stand, against a server with the embedded model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.write_docs import ROOT
from tests.docs.pages import Page
from tests.server_process import Server, serving

ADDRESS = "127.0.0.1:9090"
RUN = ("api", "openai", "automatic1111", "comfyui", "gemini", "workflows")
"""Pages whose `bash` and `python` blocks are run in their order."""
FAIL = 'set -euo pipefail\nfunction curl { command curl --fail-with-body "$@"; }\n'
"""Before shell examples: the first failure ends them, and an error that the server answers is a failure of curl."""
pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="session")
def server(shared_server: Server) -> Server:
    return shared_server


def run(command: list[str], text: str, server: Server, folder: Path) -> str:
    done = subprocess.run(
        command,
        input=text.replace(ADDRESS, f"127.0.0.1:{server.port}"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"INVOKECLONE_URL": server.url},
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}\n{server.log.read_text()[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("name", RUN)
def test_examples_of_a_page_run(name: str, server: Server, tmp_path: Path) -> None:
    blocks = [(language, text) for language, text in Page(ROOT / "docs" / f"{name}.md").blocks if language != "text"]
    assert {"bash", "python"} >= {language for language, _ in blocks} > set()
    for language, text in blocks:
        if language == "bash":
            # `curl` succeeds whatever the server answers: --fail makes it tell.
            shell = 'set -euo pipefail\nfunction curl { command curl --fail-with-body "$@"; }\n' + text
            run(["bash", "-s"], shell, server, tmp_path)
        else:
            run([sys.executable, "-W", "error", "-"], text, server, tmp_path)


def test_readme_example_makes_an_image(server: Server, tmp_path: Path) -> None:
    script = ROOT / "scripts" / "curl-example.sh"
    output = run(["bash", str(script), "a red circle", "circle.png"], "", server, tmp_path)
    assert output == "circle.png\n"
    assert (tmp_path / "circle.png").read_bytes().startswith(b"\x89PNG")


def test_a_backup_made_while_the_server_runs_opens(server: Server, tmp_path: Path) -> None:
    page = Page(ROOT / "docs" / "operations.md")
    (backup,) = [text for language, text in page.blocks if language == "bash" and "backup(target)" in text]
    text = backup.replace("ROOT=~/invokeai", f"ROOT={server.root}").replace("BACKUP=~/", f"BACKUP={tmp_path}/")
    run(["bash", "-s"], FAIL + text, server, tmp_path)
    command = [sys.executable, "-m", "invokeclone", "models", "list", "--root", str(tmp_path / "invokeai-backup")]
    assert "Embedded Tiny" in run(command, "", server, ROOT)


def test_the_minimal_node_pack_runs(server: Server, tmp_path: Path) -> None:
    page = Page(ROOT / "docs" / "node-packs.md")
    (pack,) = [text for language, text in page.blocks if language == "text" and "ShoutInvocation" in text]
    folder = tmp_path / "shout"
    folder.mkdir()
    (folder / "__init__.py").write_text(pack)
    answer = server.client.post("/api/v2/custom_nodes/install", json={"source": str(folder)}).json()
    assert answer["success"], answer
    graph = {"nodes": {"a": {"id": "a", "type": "shout", "text": "quiet"}}, "edges": []}
    (item_id,) = server.enqueue({"batch": {"graph": graph, "runs": 1}})
    item = server.finished(item_id)
    assert item["status"] == "completed", item["error_message"]
    assert [result["value"] for result in item["session"]["results"].values()] == ["QUIET"]


def test_accounts_example_signs_in(tmp_path: Path) -> None:
    page = Page(ROOT / "docs" / "accounts.md")
    (sign_in,) = [text for language, text in page.blocks if language == "bash" and "/auth/login" in text]
    root, password = tmp_path / "root", "Correct-1-horse"
    add = ["user", "add", "ada@example.com", "--admin", "--password-stdin", "--root", str(root)]
    subprocess.run([sys.executable, "-m", "invokeclone", *add], input=password, text=True, cwd=ROOT, check=True)
    with serving(root, INVOKEAI_MULTIUSER="true") as server:
        output = run(["bash", "-s"], FAIL + sign_in.replace("PASSWORD", password), server, tmp_path)
        assert '"email":"ada@example.com","display_name":null,"is_admin":true' in output

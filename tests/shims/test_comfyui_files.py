"""ComfyUI's files: uploads under the client's names, users' settings and data."""

import hashlib
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.shims.comfyui.files.names import ImageName, normalize_path
from tests.shims.comfyui import Comfy, frames_to_end, image_to_image, text_to_image
from tests.shims.conftest import png, read_image

RED, BLUE = (png(Image.new("RGB", (64, 64), color)) for color in ("red", "blue"))


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """Return a subfolder that no other test uses."""
    return hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


def upload(http: httpx.Client, data: bytes, name: str = "a.png", **fields: str) -> httpx.Response:
    return http.post("/upload/image", files={"image": (name, data, "image/png")}, data=fields)


def color(http: httpx.Client, **image: str) -> Any:
    answer = http.get("/view", params=image)
    return read_image(answer.content).convert("RGB").getpixel((0, 0)) if answer.status_code == 200 else None


def test_uploads_keep_name_and_subfolder(http: httpx.Client, folder: str) -> None:
    answer = upload(http, RED, "my photo.PNG", subfolder=f"{folder}/deep")
    assert answer.json() == {"name": "my photo.PNG", "subfolder": f"{folder}/deep", "type": "input"}
    image = {"filename": "my photo.PNG", "subfolder": f"{folder}/deep", "type": "input"}
    assert color(http, **image) == (255, 0, 0)
    assert color(http, **image | {"type": "output"}) is None, "another folder"
    assert color(http, **image | {"subfolder": folder}) is None
    assert color(http, filename=f"{folder}/deep/my photo.PNG [input]") == (255, 0, 0)
    offered = http.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"]["image"][0]
    assert offered[0] == f"{folder}/deep/my photo.PNG"


def test_a_taken_name_gets_a_number_unless_the_file_is_the_same(http: httpx.Client, folder: str) -> None:
    names = [upload(http, data, subfolder=folder).json()["name"] for data in (RED, BLUE, RED, BLUE)]
    assert names == ["a.png", "a (1).png", "a.png", "a (1).png"]
    green = png(Image.new("RGB", (8, 8), "lime"))
    assert upload(http, green, subfolder=folder).json()["name"] == "a (2).png"
    assert color(http, filename="a.png", subfolder=folder, type="input") == (255, 0, 0)
    assert color(http, filename="a (1).png", subfolder=folder, type="input") == (0, 0, 255)


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "n" * 255, "a." + "x" * 253, ".png"])
def test_numbered_names_are_not_too_long(http: httpx.Client, folder: str, name: str) -> None:
    assert upload(http, RED, name, subfolder=folder).json()["name"] == name
    numbered = upload(http, BLUE, name, subfolder=folder).json()["name"]
    assert " (1)" in numbered
    assert color(http, filename=numbered, subfolder=folder, type="input") == (0, 0, 255)
    assert upload(http, BLUE, name, subfolder=folder).json()["name"] == numbered


@pytest.mark.parametrize("flag", ["true", "1"])
def test_overwrite_replaces_the_image_of_a_name(http: httpx.Client, folder: str, flag: str) -> None:
    upload(http, RED, subfolder=folder)
    assert upload(http, BLUE, subfolder=folder, overwrite=flag).json()["name"] == "a.png"
    assert color(http, filename="a.png", subfolder=folder, type="input") == (0, 0, 255)
    assert upload(http, RED, subfolder=folder, overwrite="false").json()["name"] == "a (1).png"


def test_only_uploads_to_the_output_folder_are_in_the_gallery(http: httpx.Client, folder: str) -> None:
    def gallery() -> int:
        return int(http.get("/api/v1/images/", params={"is_intermediate": False}).json()["total"])

    before = gallery()
    for kind in ("input", "temp"):
        assert upload(http, RED, subfolder=folder, type=kind).json()["type"] == kind
    assert gallery() == before
    assert upload(http, RED, subfolder=folder, type="output").json()["type"] == "output"
    assert gallery() == before + 1
    for kind in ("input", "temp", "output"):
        assert color(http, filename="a.png", subfolder=folder, type=kind) == (255, 0, 0)


def test_workflows_load_uploads_by_their_names(http: httpx.Client, folder: str) -> None:
    comfy = Comfy(http)
    comfy.upload(BLUE, subfolder=folder)
    comfy.upload(RED, subfolder=folder, type="output")
    for name, expected in ((f"{folder}/a.png", (0, 0, 255)), (f"{folder}/a.png [output]", (255, 0, 0))):
        workflow = {
            "1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        assert read_image(comfy.pictures(comfy.run(workflow), "2")[0]).getpixel((0, 0)) == expected
    refusal = comfy.post(image_to_image(f"{folder}/b.png"))
    assert refusal.json()["node_errors"]["10"]["errors"][0]["details"] == f"Invalid image file: {folder}/b.png"


def test_a_deleted_image_takes_its_upload_along(http: httpx.Client, folder: str) -> None:
    comfy = Comfy(http)
    name = comfy.upload(RED, subfolder=folder, type="output")
    (image,) = http.get("/api/v1/images/", params={"is_intermediate": False, "limit": 1}).json()["items"]
    http.delete(f"/api/v1/images/i/{image['image_name']}").raise_for_status()
    assert color(http, filename="a.png", subfolder=folder, type="output") is None
    assert comfy.post(image_to_image(f"{name} [output]")).status_code == 400
    assert comfy.upload(BLUE, subfolder=folder, type="output") == name, "the name is free again"


def test_masks_are_stored_under_their_own_names(http: httpx.Client, folder: str) -> None:
    upload(http, RED, subfolder=folder)
    hole = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (0, 0, 32, 64))
    reference = {"filename": "a.png", "subfolder": folder, "type": "input"}

    def upload_mask(**fields: str) -> httpx.Response:
        file = {"image": ("mask.png", png(hole), "image/png")}
        return http.post("/upload/mask", files=file, data={"original_ref": json.dumps(reference), **fields})

    stored = {"name": "mask.png", "subfolder": folder, "type": "input"}
    assert upload_mask(subfolder=folder).json() == stored
    assert upload_mask(subfolder=folder).json() == stored, "the same mask of the same image"
    masked = read_image(
        http.get("/view", params={"filename": "mask.png", "subfolder": folder, "type": "input"}).content
    )
    assert masked.getpixel((0, 0)) == (255, 0, 0, 0)
    assert masked.getpixel((63, 0)) == (255, 0, 0, 255)
    reference["filename"] = "nothing.png"
    assert upload_mask().status_code == 404
    for wrong in ({"filename": 5}, {"filename": "a.png", "type": 5}, {"filename": "a.png", "subfolder": {}}, [], "a"):
        file = {"image": ("mask.png", png(hole), "image/png")}
        answer = http.post("/upload/mask", files=file, data={"original_ref": json.dumps(wrong)})
        assert answer.status_code == 400, wrong


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("a.png", {"subfolder": "../x"}, 403),
        ("a.png", {"subfolder": "/etc"}, 403),
        ("..", {}, 403),
        ("a.png", {"subfolder": "x/../../.."}, 403),
        ("a.png", {"type": "models"}, 400),
        ("a.png", {"subfolder": "x" * 300}, 400),
        ("a.png", {"subfolder": "x\n"}, 400),
        (".", {}, 400),
        ("x" * 300, {}, 400),
    ],
)
def test_names_outside_of_the_folder_are_refused(
    http: httpx.Client, name: str, fields: dict[str, str], status: int
) -> None:
    answer = upload(http, RED, name, **fields)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "node_errors"}


def test_names_are_parsed_as_clients_write_them() -> None:
    assert ImageName.parse("a.png") == ImageName("input", "", "a.png")
    assert ImageName.parse("sub\\deep/a.png [temp]", "output") == ImageName("temp", "sub/deep", "a.png")
    assert ImageName.parse("a [b].png", "output", "x/./y/") == ImageName("output", "x/y", "a [b].png")
    assert normalize_path("a/./b//c/..", "x") == "a/b"
    for path in ("", "a/../..", "/a", "..", "C:\\..\\..\\.."):
        if path:
            with pytest.raises(InvokeCloneError):
                normalize_path(path, "x")
    assert normalize_path("", "x") == ""


# Users, settings, user data


def test_settings_are_kept(http: httpx.Client) -> None:
    assert http.get("/users").json() == {"storage": "server", "migrated": True}
    assert http.post("/users", json={"username": "x"}).status_code == 403
    assert http.post("/settings", json={"Comfy.A": {"b": [1, None]}, "Comfy.B": None}).status_code == 200
    assert http.post("/settings/Comfy.C", content=b"false").status_code == 200
    assert http.get("/settings").json() == {"Comfy.A": {"b": [1, None]}, "Comfy.B": None, "Comfy.C": False}
    assert http.get("/api/settings/Comfy.A").json() == {"b": [1, None]}
    assert http.get("/settings/absent").json() is None
    assert http.get("/userdata/comfy.settings.json").json()["Comfy.C"] is False
    http.post("/userdata/comfy.settings.json", content=b"not JSON").raise_for_status()
    assert http.get("/settings").json() == {}
    for content in (b"[1]", b"{", b"5"):
        assert http.post("/settings", content=content).status_code == 400
    assert http.post("/settings/" + "x" * 501, content=b"1").status_code == 400
    assert http.post("/settings/x", content=b'"\\ud800"').status_code == 422
    http.delete("/userdata/comfy.settings.json").raise_for_status()


def test_user_data_is_stored_listed_moved_and_deleted(http: httpx.Client, folder: str) -> None:
    def address(path: str) -> str:
        return "/userdata/" + quote(f"{folder}/{path}", safe="")

    assert http.post(address("a%b.json"), content=b"\x00\xff").json() == f"{folder}/a%b.json"
    assert http.get(address("a%b.json")).content == b"\x00\xff"
    assert http.get(f"/userdata/{folder}/a%25b.json").content == b"\x00\xff", "slashes need no encoding"
    info = http.post(address("deep/ü.txt"), params={"full_info": "true"}, content=b"abc").json()
    assert (info["path"], info["size"]) == (f"{folder}/deep/ü.txt", 3)
    assert info["modified"] >= info["created"] > 1_700_000_000_000
    assert http.post(address("deep/ü.txt"), params={"overwrite": "false"}, content=b"x").status_code == 409
    assert http.post(address("deep/ü.txt"), content=b"abcd").status_code == 200

    def listed(**query: str) -> Any:
        return http.get("/userdata", params={"dir": folder, **query}).json()

    assert listed() == ["a%b.json"]
    assert listed(recurse="true") == ["a%b.json", "deep/ü.txt"]
    assert listed(recurse="true", split="true") == [["a%b.json", "a%b.json"], ["deep/ü.txt", "deep", "ü.txt"]]
    assert [(file["path"], file["size"]) for file in listed(recurse="true", full_info="true")] == [
        ("a%b.json", 2),
        ("deep/ü.txt", 4),
    ]
    entries = http.get("/api/v2/userdata", params={"path": folder}).json()
    assert [(entry["type"], entry["path"]) for entry in entries] == [
        ("directory", f"{folder}/deep"),
        ("file", f"{folder}/a%b.json"),
        ("file", f"{folder}/deep/ü.txt"),
    ]
    move = f"{address('deep/ü.txt')}/move/{quote(f'{folder}/a%b.json', safe='')}"
    assert http.post(move, params={"overwrite": "false"}).status_code == 409
    assert http.post(move).json() == f"{folder}/a%b.json"
    assert http.post(move).status_code == 404
    assert http.get(address("a%b.json")).content == b"abcd"
    assert http.delete(address("a%b.json")).status_code == 204
    assert http.delete(address("a%b.json")).status_code == 404
    assert http.get(address("a%b.json")).status_code == 404
    assert http.get("/userdata", params={"dir": folder}).status_code == 404


def test_a_path_is_either_a_file_or_a_folder(http: httpx.Client, folder: str) -> None:
    assert http.post(f"/userdata/{folder}%2Fa", content=b"1").status_code == 200
    assert http.post(f"/userdata/{folder}%2Fa%2Fb", content=b"1").status_code == 409
    assert http.post(f"/userdata/{folder}", content=b"1").status_code == 409
    assert http.post(f"/userdata/{folder}%2Fa/move/{folder}%2Fa%2Fb").status_code == 200, "it makes room for itself"
    assert http.get("/userdata", params={"dir": folder, "recurse": "true"}).json() == ["a/b"]


def test_settings_that_could_not_be_read_again_are_refused(http: httpx.Client) -> None:
    """Otherwise the next change would replace all of them."""
    http.post("/settings", json={"kept": 1}).raise_for_status()
    many = [[0] * 1000] * 300
    http.post("/settings/first", json=many).raise_for_status()
    answer = http.post("/settings/second", json=many)
    assert (answer.status_code, "limits.json_values" in answer.text) == (413, True)
    http.post("/settings", json={"first": 1}).raise_for_status()
    settings = http.get("/settings").json()
    assert (settings["kept"], settings["first"], "second" in settings) == (1, 1, False)


@pytest.mark.parametrize("path", ["..%2Fx", "%2Fetc%2Fpasswd", "a%2F..%2F..%2Fx", "%2E%2E%5Cx"])
def test_user_data_cannot_leave_its_folder(http: httpx.Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert http.request(method, f"/userdata/{path}").status_code == 403
    assert http.post(f"/userdata/a/move/{path}").status_code == 403
    assert http.get(f"/userdata?dir={path}").status_code == 403
    assert http.get(f"/v2/userdata?path={path}").status_code == 403


def test_user_data_is_never_a_page(http: httpx.Client) -> None:
    for name, expected in (
        ("x.html", "application/octet-stream"), ("x.svg", "application/octet-stream"), ("x.js", "application/octet-stream"),
        ("x.json", "application/json"), ("x", "application/octet-stream"),
    ):  # fmt: skip
        http.post(f"/userdata/{name}", content=b"<script>").raise_for_status()
        answer = http.get(f"/userdata/{name}")
        assert answer.headers["content-type"].partition(";")[0] == expected
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["x-content-type-options"] == "nosniff"
    http.post("/userdata/user.css", content=b"body {}").raise_for_status()
    assert http.get("/userdata/user.css").headers["content-type"].startswith("text/css")
    assert http.get("/userdata").status_code == 400
    assert http.get("/userdata/").status_code in (400, 404)


def test_routes_of_models(http: httpx.Client) -> None:
    assert {"name": "loras", "folders": [], "extensions": []} in http.get("/experiment/models").json()
    (model,) = http.get("/experiment/models/checkpoints").json()
    assert model["name"] == "Embedded Tiny"
    assert model["size"] > 1000
    query = {"filename": "Embedded Tiny"}
    assert http.get("/view_metadata/checkpoints", params=query).json()["modelspec.title"] == "Embedded Tiny"
    for path in ("/experiment/models/x", "/models/x", "/view_metadata/x", "/view_metadata/loras?filename=x"):
        assert http.get(path).status_code == 404


def test_workflows_run_only_their_targets(http: httpx.Client) -> None:
    comfy = Comfy(http)
    workflow = text_to_image(width=64, height=64)
    workflow["10"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    with comfy.listening() as socket:
        prompt_id = comfy.enqueue(workflow, partial_execution_targets=["10"])
        frames_to_end(socket, prompt_id)
    assert list(comfy.history(prompt_id)[prompt_id]["outputs"]) == ["10"]
    assert comfy.post(workflow, partial_execution_targets=[]).json()["error"]["type"] == "prompt_no_outputs"
    assert comfy.post(workflow, partial_execution_targets="10").status_code == 400

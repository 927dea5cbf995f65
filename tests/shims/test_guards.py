"""What the server refuses before any route sees it is said in the words of the dialect that the address belongs to."""

import json
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

FORMS: dict[str, Any] = {
    "/v1/images/generations": lambda body: body["error"]["type"] == "invalid_request_error",
    "/openai/deployments/a/images/edits": lambda body: body["error"]["message"],
    "/v1beta/models/a:predict": lambda body: body["error"]["code"] == 413,
    "/sdapi/v1/txt2img": lambda body: body["detail"] and "error" in body,
    "/prompt": lambda body: body["error"]["type"],
    "/comfyui/prompt": lambda body: body["error"]["type"],
    "/interrupt": lambda body: body["error"]["type"],
    "/api/queue": lambda body: body["error"]["type"],
    "/api/v1/queue/default/enqueue_batch": lambda body: set(body) == {"detail"},
}


@pytest.mark.parametrize("path", FORMS)
def test_body_over_the_limit_is_refused(http: httpx.Client, path: str) -> None:
    connection = HTTPConnection(http.base_url.host, http.base_url.port, timeout=60)
    connection.request("POST", path, b"{}", {"Content-Length": str(2**40), "Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413
    assert FORMS[path](json.loads(answer.read()))
    connection.close()


@pytest.mark.parametrize("path", [path for path in FORMS if "v1beta" not in path])
def test_write_from_a_cross_site_page_is_refused(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={}, headers={"Sec-Fetch-Site": "cross-site", "Origin": "http://elsewhere"})
    assert answer.status_code == 403
    assert FORMS[path](answer.json()) or answer.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize("path", [*FORMS, "/object_info", "/comfyui/ws", "/ws", "/api/view"])
def test_foreign_host_name_is_refused(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert FORMS.get(path, FORMS["/prompt"])(answer.json()) or answer.json()["error"]["code"] == 421
    assert "allowed_hosts" in answer.text

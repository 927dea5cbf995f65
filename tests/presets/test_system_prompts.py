"""System prompts: making, changing, rights, and those that a new database begins with."""

import re

import pytest

from invokeclone.presets import prompts

PROMPTS = "/api/v1/system_prompts"


async def make(client, name: str = "n", content: str = "c") -> dict:
    answer = await client.post(f"{PROMPTS}/", json={"name": name, "content": content})
    assert answer.status_code == 200
    return answer.json()


async def test_a_new_prompt_in_full(client) -> None:
    prompt = await make(client)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?", prompt["created_at"])
    assert prompt == {
        "id": prompt["id"],
        "name": "n",
        "content": "c",
        "user_id": "system",
        "is_public": True,
        "created_at": prompt["created_at"],
        "updated_at": prompt["created_at"],
    }
    assert (await client.get(f"{PROMPTS}/i/{prompt['id']}")).json() == prompt
    assert prompt in (await client.get(f"{PROMPTS}/")).json()


async def test_change_and_delete(client) -> None:
    prompt = await make(client)
    changed = (await client.patch(f"{PROMPTS}/i/{prompt['id']}", json={"content": "d"})).json()
    assert changed == {**prompt, "content": "d", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] >= prompt["updated_at"]
    changes = {"name": "m", "is_public": False, "content": None}
    assert (await client.patch(f"{PROMPTS}/i/{prompt['id']}", json=changes)).json()["content"] == "d"
    deletion = await client.delete(f"{PROMPTS}/i/{prompt['id']}")
    assert (deletion.status_code, deletion.json()) == (200, None)
    assert (await client.get(f"{PROMPTS}/i/{prompt['id']}")).status_code == 404


async def test_missing_prompts_are_404(client) -> None:
    assert (await client.get(f"{PROMPTS}/i/nope")).status_code == 404
    assert (await client.patch(f"{PROMPTS}/i/nope", json={})).status_code == 404
    assert (await client.delete(f"{PROMPTS}/i/nope")).status_code == 404


@pytest.mark.parametrize("body", [{"name": "", "content": "c"}, {"name": "n", "content": ""}, {"name": "n"}, {"x": 1}])
async def test_empty_and_unknown_fields_are_422(client, body: dict) -> None:
    assert (await client.post(f"{PROMPTS}/", json=body)).status_code == 422


@pytest.mark.parametrize("body", [{"name": ""}, {"content": ""}, {"user_id": "me"}, {"is_public": "perhaps"}])
async def test_invalid_changes_are_422_and_change_nothing(client, body: dict) -> None:
    prompt = await make(client)
    assert (await client.patch(f"{PROMPTS}/i/{prompt['id']}", json=body)).status_code == 422
    assert (await client.get(f"{PROMPTS}/i/{prompt['id']}")).json() == prompt


async def test_default_prompts_are_added_to_a_new_database_only_once(client, begun) -> None:
    listed = (await client.get(f"{PROMPTS}/")).json()
    assert len({prompt["id"] for prompt in listed}) == len({prompt["name"] for prompt in listed}) == 8
    assert {(prompt["user_id"], prompt["is_public"]) for prompt in listed} == {("system", True)}
    await client.delete(f"{PROMPTS}/i/{listed[0]['id']}")
    await prompts.start(begun)
    assert (await client.get(f"{PROMPTS}/")).json() == listed[1:]


async def test_default_prompts_have_fixed_ids(client) -> None:
    names = {prompt["id"]: prompt["name"] for prompt in (await client.get(f"{PROMPTS}/")).json()}
    assert names["5ed01960-c37e-520e-abcf-6b731da2d67d"] == "Expand a Prompt"


async def test_other_users_read_public_prompts_and_change_none(people) -> None:
    ann, bob, admin = people["ann"], people["bob"], people["root"]
    prompt = await make(ann)
    assert prompt["is_public"] is False
    assert prompt["user_id"] == "ann"
    url = f"{PROMPTS}/i/{prompt['id']}"
    assert (await bob.get(url)).status_code == 403
    assert prompt not in (await bob.get(f"{PROMPTS}/")).json()
    assert prompt in (await admin.get(f"{PROMPTS}/")).json()
    public = (await ann.patch(url, json={"is_public": True})).json()
    assert public in (await bob.get(f"{PROMPTS}/")).json()
    assert (await bob.get(url)).json() == public
    assert (await bob.patch(url, json={"name": "b"})).status_code == 403
    assert (await bob.delete(url)).status_code == 403
    assert (await admin.patch(url, json={"name": "of root"})).json()["user_id"] == "ann"
    assert (await admin.delete(url)).status_code == 200


async def test_only_admins_change_default_prompts(people) -> None:
    first = (await people["ann"].get(f"{PROMPTS}/")).json()[0]
    assert (await people["ann"].delete(f"{PROMPTS}/i/{first['id']}")).status_code == 403
    assert (await people["root"].delete(f"{PROMPTS}/i/{first['id']}")).status_code == 200

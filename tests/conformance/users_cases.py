"""Accounts, keys, client state, style presets and system prompts."""

from invokeclone.presets import prompts, schemas
from invokeclone.presets import store as presets
from invokeclone.presets.schemas import PresetForm, PresetRow
from invokeclone.tables import api_keys, style_presets, system_prompts, users
from invokeclone.users import client_state, key_store, rights, signin, store
from invokeclone.users.current import User
from tests.conformance.cases import AT, Calls, case

ANN = {"user_id": "ann", "email": "ann@x.io", "display_name": "Ann", "is_admin": True, "password_hash": "h"}
BOB = {"user_id": "bob", "email": "bob@x.io", "display_name": None, "is_active": False}


@case
async def accounts(run: Calls) -> None:
    await run(store.has_admin)
    await run.insert(users, ANN, BOB | {"created_at": "2026-02-01 00:00:00.000"})
    await run(store.has_admin)
    for user_id in ("ann", "bob"):
        await run(store.has_other_admin, user_id)
        await run(store.get_hash, user_id)
        await run(rights.acting_user, user_id)
        await run(signin.account_status, user_id)
        await run(signin.may_run, user_id)
    await run(store.list_all)
    await run(store.get, "ann")
    await run(store.get, "nobody")
    await run(store.find, "ANN@x.io")
    await run(store.find, "ann@x.io")
    await run(store.change, "bob", is_active=True, is_admin=True, display_name="Bob")
    await run(store.change, "bob", email="ann@x.io")
    await run(store.replace_hash, "ann", "wrong", "new", revoke=True)
    await run(store.replace_hash, "ann", "h", "new", revoke=True)
    await run(store.get, "ann")
    await run(store.add, email="ann@x.io", display_name=None, password_hash="", is_admin=False)
    await run(store.add, email="eve@x.io", display_name="Eve", password_hash="p", is_admin=True)
    await run(store.remove, "bob")
    await run(store.remove, "bob")
    await run(store.list_all)


@case
async def secrets(run: Calls) -> None:
    await run(signin.read_secret)
    async with run.database.write() as connection:
        first = await store.secret(connection)
        run.record(store.secret, first == await store.secret(connection) == await signin.read_secret(connection))
    await run(signin.verify, "no token")


@case
async def keys(run: Calls) -> None:
    await run.insert(users, ANN, BOB)
    await run(key_store.has_keys)
    await run(key_store.add, "ann", name="n", key_hash="h1", prefix="ic-1")
    await run(key_store.add, "nobody", name="n", key_hash="h3", prefix="ic-3")
    await run.insert(
        api_keys, {"id": "k2", "user_id": "bob", "name": "m", "key_hash": "h2", "prefix": "ic-2", "created_at": AT}
    )
    await run(key_store.has_keys)
    for digest in ("h1", "h2", "h9"):  # the second one's account is disabled
        await run(key_store.find, digest)
    for owner in ("ann", "bob", None):
        listed = await run(key_store.list_all, owner)
    assert len(listed) == 2
    await run(key_store.note_use, "k2", "another time")
    await run(key_store.note_use, "k2", None)
    await run(key_store.list_all, "bob")
    await run(key_store.remove, "k2")
    await run(key_store.remove, "k2")


@case
async def state_of_clients(run: Calls) -> None:
    await run.insert(users, ANN)
    await run(client_state.get, "ann", "a")
    await run(client_state.set_values, "ann", {"a": "1", "b%c": "é", "b_d": "x" * 9000})
    await run(client_state.set_values, "ann", {"a": "2"})
    await run(client_state.get, "ann", "a")
    for prefix in ("", "b", "b%", "B", "b_"):
        await run(client_state.keys, "ann", prefix)
    await run(client_state.remove, "ann", "a")
    await run(client_state.keys, "ann", "")
    await run(client_state.clear, "ann")
    await run(client_state.keys, "ann", "")


def form(name: str, **fields: object) -> PresetForm:
    return PresetForm.model_validate(
        {"name": name, "positive_prompt": "{prompt}, sharp", "negative_prompt": "", "type": "user", **fields}
    )


@case
async def style_preset_rows(run: Calls) -> None:
    await run(presets.create, form("Zoë"), "ann", preset_id="p1", image="abc")
    await run(presets.create, form("a", is_public=True), "bob", preset_id="p2", image=None)
    await run.insert(
        style_presets, {"id": "p3", "name": "B", "type": "default", "positive_prompt": "", "negative_prompt": ""}
    )
    for viewer in ("ann", "bob", None):
        await run(presets.list_presets, viewer)
    await run(presets.get, "p1")
    await run(presets.exists, "p1")
    await run(presets.exists, "none")
    await run(presets.get, "p9")
    await run(presets.update_preset, "p1", form("y", is_public=True), None)
    await run(presets.update_preset, "p9", form("y"), None)
    await run(presets.with_image, ["p1", "p2", "none"])
    await run(presets.update_preset, "p1", form("y", is_public=True), "version")
    await run(presets.with_image, ["p1", "p2", "none"])
    await run(presets.with_image, [])
    await run(presets.delete_preset, "p2")
    row = PresetRow.model_validate({"name": "n", "prompt": "p", "negative_prompt": "q"})
    await run(presets.create_many, [row, row], "ann")
    await run(presets.count_of, "ann")
    await run(presets.list_users)
    await run(presets.defaults)
    await run(presets.replace_default, "p3", ("n", "p", "q"), "system")
    await run(presets.replace_default, "p4", ("n4", "p4", "q4"), "system")
    await run(presets.defaults)
    await run(presets.delete_many, ["p3", "p4", "p9"])
    await run(presets.defaults)


@case
async def prompts_for_language_models(run: Calls) -> None:
    ann, bob = User(user_id="ann"), User(user_id="bob")
    await run(prompts.create, schemas.SystemPromptWithoutId(name="n", content="c"), ann, is_public=False)
    await run.insert(
        system_prompts,
        {"id": "s1", "name": "é", "content": "x", "user_id": "ann", "is_public": True},
        {"id": "s2", "name": "B", "content": "x", "user_id": "bob"},
        {"id": "s3", "name": "a", "content": "x", "user_id": "bob"},
    )
    for user in (ann, bob):
        await run(prompts.list_prompts, user)
        await run(prompts.get, "s1", user)
        await run(prompts.get, "s2", user)
        await run(prompts.update_prompt, "s2", schemas.SystemPromptChanges(content="z", is_public=True), user)
        await run(prompts.delete_prompt, "s3", user)
    await run(prompts.list_prompts, ann)

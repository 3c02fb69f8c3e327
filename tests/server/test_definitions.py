"""Definitions and the runs made of them."""

import pytest

from gyoza.models import OpDefinition
from gyoza.server.store import definitions

from .api import Api, Json, delete, pages_of

OP: Json = {
    "id": "classify-op",
    "version": "1.0.0",
    "description": "Says what is on a picture.",
    "image": "classify:1",
    "command": ["run"],
    "input_specs": {
        "image_path": {"type": "string", "required": True},
        "top_k": {"type": "int", "required": False, "default": 3},
    },
    "env_vars": {"A": "1"},
    "constraints": {"cpu": 1, "ram_mb": None, "vram_mb": None},
    "tags": ["cuda"],
    "timeout_s": 10.0,
    "grace_s": 2.5,
    "retry_policy": {"max_attempts": 2, "backoff_s": 1.0},
    "event_delivery": {"topic": "t", "attributes": {"x": 1}},
}
INHERITED = (
    "image",
    "command",
    "env_vars",
    "constraints",
    "tags",
    "timeout_s",
    "grace_s",
    "retry_policy",
    "event_delivery",
)


async def test_a_definition_is_stored_and_told_as_it_was_deployed(api: Api) -> None:
    made = await api.post("/definitions", OP, 201)
    assert {name: made[name] for name in OP if name != "input_specs"} == {
        name: value for name, value in OP.items() if name != "input_specs"
    }
    assert made["input_specs"]["image_path"] == {
        "type": "string",
        "required": True,
        "default": None,
    }
    assert await api.get("/definitions/classify-op") == made
    again = await api.post("/definitions", OpDefinition.from_dict(made).to_dict())
    assert again | {"updated_at": made["updated_at"]} == made
    assert await api.get("/definitions") == [again]


async def test_the_latest_is_the_one_deployed_last(api: Api) -> None:
    for version, status in (("2", 201), ("1", 201), ("2", 200), ("1.5", 201)):
        await api.post("/definitions", {**OP, "version": version}, status)
    assert (await api.get("/definitions/classify-op"))["version"] == "1.5"
    assert (await api.get("/definitions/classify-op", version="2"))["version"] == "2"
    assert [d["version"] for d in await api.get("/definitions")] == ["1", "2", "1.5"]
    for path in ("/definitions/classify-op?version=9", "/definitions/other"):
        assert "no definition" in await api.detail("GET", path, 404)


async def test_a_run_inherits_everything_but_its_inputs(api: Api) -> None:
    await api.post("/definitions", OP, 201)
    body = {"inputs": {"image_path": "/x"}, "priority": 7}
    run = await api.post("/definitions/classify-op/runs", body, 201)
    assert {name: run[name] for name in INHERITED} == {name: OP[name] for name in INHERITED}
    assert (run["op_definition"], run["priority"]) == ("classify-op", 7)
    assert run["inputs"] == {"image_path": "/x", "top_k": 3}


async def test_a_repeated_submission_is_answered_though_the_inputs_have_changed_since(
    api: Api,
) -> None:
    header = {"Idempotency-Key": "k1"}
    body = {"inputs": {"image_path": "/x"}}
    await api.post("/definitions", OP, 201)
    run = await api.post("/definitions/classify-op/runs", body, 201, headers=header)
    specs = {"other": {"type": "string"}}
    await api.post("/definitions", {**OP, "version": "2", "input_specs": specs}, 201)
    assert await api.post("/definitions/classify-op/runs", body, 201, headers=header) == run


async def test_a_run_can_be_made_of_an_older_version(api: Api) -> None:
    await api.post("/definitions", {**OP, "image": "old"}, 201)
    await api.post("/definitions", {**OP, "version": "2"}, 201)
    body = {"inputs": {"image_path": "/x"}}
    run = await api.post("/definitions/classify-op/runs", {**body, "version": "1.0.0"}, 201)
    assert run["image"] == "old"
    for name, version in (("classify-op", "9"), ("nobody", None)):
        path = f"/definitions/{name}/runs"
        await api.detail("POST", path, 404, json={**body, "version": version})


async def test_wrong_inputs_are_400_with_a_sentence_for_each(api: Api) -> None:
    await api.post("/definitions", OP, 201)
    body = {"inputs": {"top_k": "three", "extra": 1}}
    detail = await api.detail("POST", "/definitions/classify-op/runs", 400, json=body)
    assert "Input 'image_path' (string) is required." in detail
    assert "Input 'top_k' must be of type int, not str." in detail
    assert "Input 'extra' is unknown" in detail
    assert (await api.get("/runs"))["data"] == []


async def test_runs_of_a_definition_are_idempotent_too(api: Api) -> None:
    await api.post("/definitions", {"id": "op", "image": "i"}, 201)
    header = {"Idempotency-Key": "same"}
    first = await api.post("/definitions/op/runs", {}, 201, headers=header)
    assert await api.post("/definitions/op/runs", {}, 201, headers=header) == first
    too_long = {"Idempotency-Key": "x" * 256}
    await api.detail("POST", "/definitions/op/runs", 422, json={}, headers=too_long)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"id": "../x"}, "id"),
        ({"id": "a b"}, "id"),
        ({"version": "1/2"}, "version"),
        ({"image": "-rm"}, "image"),
        ({"input_specs": {"a": {"type": "picture"}}}, "string, int, float"),
        ({"input_specs": {"a": {"type": "int", "default": "x"}}}, "default"),
        ({"input_specs": {"a": {}}}, "input_specs.a.type"),
        ({"inputs": {}}, "inputs"),
    ],
)
async def test_a_definition_that_makes_no_sense_is_422(api: Api, change: Json, word: str) -> None:
    assert word in await api.detail("POST", "/definitions", 422, json={**OP, **change})
    assert await api.get("/definitions") == []


async def test_a_long_list_of_definitions_comes_in_pages(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("b", "1"), ("a", "2"), ("a", "1"), ("c", "1")):
        await api.post("/definitions", {"id": name, "version": version, "image": "a"}, 201)
    pages = await pages_of(api, "/definitions", 3)
    names = [[(found["id"], found["version"]) for found in page] for page in pages]
    assert names == [[("a", "2"), ("a", "1"), ("b", "1")], [("c", "1")]]
    monkeypatch.setattr(definitions, "PAGE_BYTES", 1)
    assert len(await pages_of(api, "/definitions", 100)) == 4
    assert "deleted" in await api.detail("GET", "/definitions?starting_after=x%201", 400)


async def test_definitions_can_be_deleted_and_their_runs_stay(api: Api) -> None:
    for version in ("1", "2", "3"):
        await api.post("/definitions", {"id": "d", "version": version, "image": "a"}, 201)
    run = (await api.post("/definitions/d/runs", {}, 201))["id"]
    await delete(api, "/definitions/d?version=3")
    assert (await api.get("/definitions/d"))["version"] == "2"
    await api.detail("DELETE", "/definitions/d?version=3", 404)
    await delete(api, "/definitions/d")
    assert await api.get("/definitions") == []
    await api.detail("DELETE", "/definitions/d", 404)
    assert (await api.run(run))["op_definition"] == "d"


async def test_a_run_may_have_another_topic_than_its_definition(api: Api) -> None:
    feed = {"topic": "nightly", "attributes": {"a": 1}}
    await api.post(
        "/definitions", {"id": "op", "image": "a", "event_delivery": {"topic": "t"}}, 201
    )
    usual = await api.post("/definitions/op/runs", {}, 201)
    other = await api.post("/definitions/op/runs", {"event_delivery": feed}, 201)
    assert usual["event_delivery"]["topic"] == "t"
    assert other["event_delivery"] == feed
    assert [run["id"] for run in (await api.get("/runs", topic="nightly"))["data"]] == [other["id"]]

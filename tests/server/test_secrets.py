"""Who asks the server for the secrets of runs: nobody but the worker that claims one is told."""

import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from gyoza.server.store.database import Database, Tx
from gyoza.server.wakeups import Wakeups

from .api import Api, Json, serving, settings_in
from .older import make_older

VALUE = "hunter2-hunter2"
ASKED: Json = {
    "image": "a",
    "env_vars": {"TOKEN": VALUE, "OPEN": "seen"},
    "secrets": ["TOKEN"],
    "event_delivery": {"topic": "t"},
}
SHOWN = {"TOKEN": "***", "OPEN": "seen"}


async def every_answer(api: Api, run: str) -> list[Any]:
    """Return all that the server tells of a run, to anybody but its worker."""
    return [
        await api.run(run),
        await api.get("/runs"),
        await api.get(f"/runs/{run}/attempts"),
        await api.get("/events", topic="t"),
        await api.get("/workers"),
        await api.ask("PATCH", f"/runs/{run}", json={"priority": 7}),
        await api.event(run, "INFO", "said"),
    ]


async def test_secrets_are_in_no_answer_but_the_workers_claim(api: Api) -> None:
    header = {"Idempotency-Key": "k"}
    made = await api.post("/runs", ASKED, 201, headers=header)
    assert made["env_vars"] == SHOWN
    assert made["secrets"] == ["TOKEN"]
    run = made["id"]
    await api.beat()
    claimed = (await api.claim())[0]
    assert claimed["env_vars"] == ASKED["env_vars"]
    assert claimed["secrets"] == ["TOKEN"]
    assert VALUE not in str(await every_answer(api, run))
    cancelled = await api.post(f"/runs/{run}/cancel")
    assert cancelled["env_vars"] == SHOWN
    assert (await api.post("/runs", ASKED, 201, headers=header))["env_vars"] == SHOWN

    retried = await api.post(f"/runs/{run}/retry")
    assert retried["env_vars"] == SHOWN
    again = (await api.claim(holding=[]))[0]
    assert (again["id"], again["env_vars"]) == (run, ASKED["env_vars"])
    released = await api.post(
        f"/runs/{run}/release", {"worker_id": "w1", "attempt": 2, "reason": "SHUTDOWN"}
    )
    assert released["env_vars"] == SHOWN


async def test_secrets_of_a_definition_reach_its_runs_and_no_answer(api: Api) -> None:
    told = [
        await api.post("/definitions", {"id": "op", **ASKED}, 201),
        await api.post("/definitions", {"id": "op", **ASKED}),
        await api.get("/definitions"),
        await api.get("/definitions/op"),
        await api.post("/definitions/op/runs", {}, 201),
    ]
    assert VALUE not in str(told)
    assert told[3]["env_vars"] == told[4]["env_vars"] == SHOWN
    await api.beat()
    assert (await api.claim())[0]["env_vars"] == ASKED["env_vars"]


@pytest.mark.parametrize("path", ["/runs", "/definitions"])
async def test_a_secret_that_is_no_variable_is_a_slip(api: Api, path: str) -> None:
    body = {"id": "op"} if path == "/definitions" else {}
    body |= {"image": "a", "env_vars": {"A": VALUE}, "secrets": ["B"]}
    detail = await api.detail("POST", path, 422, json=body)
    assert "'B'" in detail
    assert VALUE not in detail


async def test_a_definition_that_was_read_cannot_be_deployed_with_masks_for_values(
    api: Api,
) -> None:
    """Nor can somebody get at a value by giving the definition another image."""
    await api.post("/definitions", {"id": "op", **ASKED}, 201)
    shown = await api.get("/definitions/op")
    detail = await api.detail("POST", "/definitions", 422, json={**shown, "image": "mine"})
    assert "real value" in detail


async def test_other_users_of_the_machine_cannot_read_the_database(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "data"
    async with serving(settings_in(directory)) as api:
        await api.submit()
        files = list(directory.iterdir())
        assert len(files) > 1  # the write-ahead log holds values, too
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_an_error_of_the_database_that_is_logged_holds_no_values(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "db", Wakeups(), lambda: 0.0)

    def fail(tx: Tx) -> None:
        tx.conn.exec_driver_sql("INSERT INTO nowhere VALUES (?)", (VALUE,))

    with pytest.raises(SQLAlchemyError) as caught:
        await database.write(fail)
    await database.aclose()
    assert VALUE not in str(caught.value)


async def test_a_database_from_before_there_were_secrets_still_serves(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        run = await api.submit()
    removed = "UPDATE run_data SET spec = json_remove(spec, '$.secrets')"
    make_older(tmp_path / "server.sqlite3", 1, removed)
    async with serving(settings_in(tmp_path)) as api:
        assert (await api.run(run))["secrets"] == []
        await api.event(run, "STARTED")
        await api.event(run, "INFO")

"""A client, and what it raises, in more than one process."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from gyoza.client import ApiError, GyozaClient, LogIncomplete, ServerUnreachable
from gyoza.models import InputValidationError
from tests.cli.live import KEY, live_server

CHILDREN = """
import os, sys
from gyoza.client import gyoza_client

ids = [gyoza_client.create_run("image", {"n": n})["id"] for n in range(3)]
children = []
for id in ids:
    child = os.fork()
    if child == 0:
        right = all(gyoza_client.get_run(id)["id"] == id for _ in range(5))
        os._exit(0 if right else 1)
    children.append(child)
right = all(gyoza_client.get_run(ids[0])["id"] == ids[0] for _ in range(5))
ends = [os.waitpid(child, 0)[1] for child in children]
sys.exit(0 if right and not any(ends) else 1)
"""


def test_a_client_that_was_used_before_a_fork_gives_each_process_its_own_answers(
    tmp_path: Path,
) -> None:
    with live_server(tmp_path) as url:
        env = {**os.environ, "GYOZA_SERVER_URL": url, "GYOZA_API_KEY": KEY}
        done = subprocess.run([sys.executable, "-c", CHILDREN], env=env, timeout=120, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        ServerUnreachable("away"),
        LogIncomplete("cut", "text"),
        InputValidationError(["'n' is wrong.", "'m' is wrong."]),
    ],
)
def test_errors_come_whole_out_of_another_process(error: Exception) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (str(other), vars(other)) == (str(error), vars(error))


def test_a_refusal_comes_whole_out_of_another_process(tmp_path: Path) -> None:
    with (
        live_server(tmp_path) as url,
        GyozaClient(url, KEY) as client,
        pytest.raises(ApiError) as caught,
    ):
        client.get_run("nowhere")
    error = caught.value
    data = pickle.dumps(error)
    assert KEY.encode() not in data
    other = pickle.loads(data)
    assert type(other) is ApiError
    assert (str(other), other.status, other.detail) == (str(error), 404, error.detail)
    assert other.response.json() == error.response.json()
    assert other.request.url == error.request.url

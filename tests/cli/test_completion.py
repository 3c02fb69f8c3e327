import pytest

from gyoza.cli import completion
from tests.client.scripted import Answer, scripted_server

ANSWERS = {
    "run id": Answer({"data": [{"id": "ab"}, {"id": "a1"}, {"id": "b"}]}),
    "worker id": Answer([{"id": "ab"}, {"id": "a1"}, {"id": "b"}]),
    "definition name": Answer([{"id": "ab"}, {"id": "a1"}, {"id": "a1"}, {"id": "b"}]),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_ids_that_begin_so_are_offered_once_each(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_server(ANSWERS[what]) as server:
        monkeypatch.setenv("GYOZA_SERVER_URL", server.url)
        assert completion.OF[what]("a") == ["a1", "ab"]


@pytest.mark.parametrize("what", ANSWERS)
def test_without_a_server_nothing_is_offered_and_nothing_said(
    what: str, no_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completion.OF[what]("a") == []
    assert capsys.readouterr() == ("", "")


def test_without_the_right_key_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server(Answer({"detail": "Wrong key."}, 401)) as server:
        monkeypatch.setenv("GYOZA_SERVER_URL", server.url)
        assert completion.run_ids("") == []

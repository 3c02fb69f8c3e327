"""A call that has been ended stays ended, whatever its thread does next."""

import socket

from gyoza.worker.containers.docker_call import Call


class Response:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_connection_made_after_the_end_is_shut_down_at_once() -> None:
    call = Call()
    call.end()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call.connected(ours)
        assert theirs.recv(1) == b""


def test_a_response_that_arrives_after_the_end_is_closed_at_once() -> None:
    call = Call()
    call.close()
    response = Response()
    call.answered(response)
    assert response.closed


def test_a_call_can_be_closed_twice() -> None:
    call = Call()
    response = Response()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call.connected(ours)
        call.answered(response)
        call.close()
        call.close()
    assert response.closed

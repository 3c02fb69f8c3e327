"""How often somebody may ask."""

import pytest
from trio.testing import MockClock

from gyoza.server.rates import MAX_KNOWN, Rates, network_of, retry_after


async def test_a_bucket_fills_again_at_its_rate(mock_clock: MockClock) -> None:
    rates = Rates(rate=10, burst=2)
    assert [rates.take("a"), rates.take("a")] == [0, 0]
    assert rates.take("a") == pytest.approx(0.1)
    assert rates.take("b") == 0
    mock_clock.jump(0.1)
    assert rates.take("a") == 0
    assert rates.take("a") > 0


async def test_a_rate_of_zero_is_no_limit(mock_clock: MockClock) -> None:
    rates = Rates(rate=0, burst=0)
    assert {rates.take("a") for _ in range(1000)} == {0}


async def test_what_is_remembered_of_strangers_is_bounded(mock_clock: MockClock) -> None:
    rates = Rates(rate=1, burst=1)
    assert rates.take("first") == 0 < rates.take("first")
    for network in range(MAX_KNOWN + 2):
        assert rates.take(str(network)) == 0
    assert rates.take("first") == 0  # it was forgotten


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("a socket", "a socket"),
    ],
)
def test_one_guesser_has_a_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_the_header_holds_whole_seconds() -> None:
    assert [retry_after(0.01), retry_after(1.2)] == [b"1", b"2"]

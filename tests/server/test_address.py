"""Addresses as options give them."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import pytest

from attnpriv.errors import InputError
from attnpriv_server.address import Address


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "a-b.example.com", "::1"])
@pytest.mark.parametrize("port", [0, 80, 65535])
def test_an_address_reads_back_as_it_is_written(host, port) -> None:
    address = Address(host, port)

    assert Address.parse(str(address), "--listen") == address


def test_ipv6_is_written_in_brackets() -> None:
    assert Address.parse("[::1]:80", "--listen") == Address("::1", 80)
    assert str(Address("::1", 80)) == "[::1]:80"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9464",
        ":9464",
        "localhost",
        "localhost:",
        "127.0.0.1:99999",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1:\u0661",
        "127.0.0.1:1 ",
        " 127.0.0.1:1",
        "*:9464",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[localhost]:80",
        "[127.0.0.1]:80",
        "[]:80",
        "a:b:80",
        "a:b",
        "unix:/run/socket",
        "http://127.0.0.1:80",
    ],
)
def test_what_is_no_address_is_refused_by_its_option(text) -> None:
    message = f"expected --operations-listen HOST:PORT, .* got {re.escape(repr(text))}"
    with pytest.raises(InputError, match=message):
        Address.parse(text, "--operations-listen")


def test_an_address_can_be_tried_without_being_taken() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        with pytest.raises(InputError, match=f"cannot listen on {address}: in use"):
            address.check_bindable()
    for _ in range(2):
        address.check_bindable()


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid", "a..b", "x" * 64])
def test_what_is_not_this_machine_cannot_be_listened_on(host) -> None:
    with pytest.raises(InputError, match=f"cannot listen on {host}:0"):
        Address(host, 0).check_bindable()

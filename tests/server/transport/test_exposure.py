"""Where the server listens without protection."""

from __future__ import annotations

import pytest

from attnpriv.errors import InputError
from attnpriv_server.address import Address
from attnpriv_server.transport import check_exposure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_this_machine_may_be_listened_on_without_anything(host) -> None:
    check_exposure(Address(host, 0), tls=False, authentication=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com", "localhost.evil"])
def test_other_machines_need_encryption_and_authentication(host) -> None:
    listen = Address(host, 50051)

    check_exposure(listen, True, True, False)
    check_exposure(listen, False, False, True)
    with pytest.raises(InputError, match=r"without encryption \(.*\) and authentication \(.*\);"):
        check_exposure(listen, False, False, False)
    with pytest.raises(InputError, match=r"without encryption \(--tls-certificate\);"):
        check_exposure(listen, False, True, False)
    with pytest.raises(
        InputError, match=r"without authentication \(--principals or --tls-client-ca\);"
    ):
        check_exposure(listen, True, False, False)

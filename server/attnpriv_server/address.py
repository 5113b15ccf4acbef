"""Where the server listens."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from attnpriv.errors import InputError

# Ports in ASCII digits; IPv6 addresses in brackets, as nothing else tells where theirs end.
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Address:
    """A host and a port of it.

    Attributes:
        host: a name or an IP address of this machine; IPv6 ones without brackets.
        port: 0 takes a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """The address in ``HOST:PORT``; IPv6 addresses are in brackets.

        Nothing stands for all interfaces but their own addresses, 0.0.0.0 and [::]: neither an
        empty host nor a port alone does.

        Args:
            text: the address.
            option: that it was given to, for the error.

        Raises:
            InputError: it is no such address.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > 65535 or not _is_ipv6(found["ipv6"]):
            raise InputError(
                f"expected {option} HOST:PORT, with a port from 0 to 65535, got {text!r}"
            )
        return cls(found["ipv6"] or found["name"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether no other machine reaches it; False where that cannot be told from the host."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def check_bindable(self) -> None:
        """Take the address and let go of it at once, to learn early whether that can be done.

        Raises:
            InputError: the port is in use or not allowed, or the host is not this machine.
        """
        with suppress(OSError, UnicodeError):
            for family, kind, protocol, _, address in socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM
            ):
                with suppress(OSError), socket.socket(family, kind, protocol) as trial:
                    # As servers do: connections that have just ended are no reason to wait.
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    trial.bind(address)
                    return
        raise InputError(f"cannot listen on {self}: in use, or not an address of this machine")


def _is_ipv6(host: str | None) -> bool:
    """Whether this may stand in brackets, if anything does."""
    try:
        return host is None or ipaddress.ip_address(host).version == 6
    except ValueError:
        return False

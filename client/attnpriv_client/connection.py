"""How a server is reached: address, TLS, token, deadline and attempts."""

from __future__ import annotations

import math
import re
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from attnpriv.errors import InputError
from attnpriv_client.retries import Attempts

DEFAULT_TIMEOUT = 30.0
DEFAULT_ATTEMPTS = 4

# No text goes to a proxy that the environment happens to name. Calls take turns among the addresses
# of a target, and pass over one that is stopping. Only `retries` tries again; gRPC itself does so
# with calls that no server has looked at. A server that comes back, under its old address or a new
# one of its name, is found within the time of the attempts: by default gRPC tries to connect up to
# two minutes later, and does not ask for a name twice within thirty seconds.
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.dns_min_time_between_resolutions_ms", 500),
)

Metadata = tuple[tuple[str, str], ...]

_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\]):\d+|unix(-abstract)?:.+", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Tls:
    """Encrypt, and check that the server is who it says.

    The server's certificate must be for the host that the target names. Not covered: revocation.

    Attributes:
        ca: certificates of the authorities to trust, in PEM; gRPC's own list where None.
        certificate: the client's own certificate (chain), for a server that asks for one.
        key: the private key of ``certificate``, not encrypted.

    Raises:
        InputError: only one of ``certificate`` and ``key`` is given.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("expected a client certificate and its key, got only one of them")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            InputError: one cannot be read or is not PEM, or the key is not the certificate's.
        """
        ca, key, certificate = map(_content, (self.ca, self.key, self.certificate))
        self._check()
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def _check(self) -> None:
        """Let Python's TLS read the files first: gRPC would only report that nothing connects."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise InputError(f"expected certificates in PEM in {self.ca}") from None
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError:
            raise InputError(
                f"expected a certificate and its key in PEM, got {self.certificate} and {self.key}"
            ) from None


@dataclass(frozen=True)
class Connection:
    """Everything that is said once about a server; see ``Client`` for the arguments.

    Raises:
        InputError: a value cannot be meant, or the token would travel readable for others.
    """

    target: str
    timeout: float
    token: str | None = field(repr=False)
    tls: Tls | None
    insecure: bool
    attempts: int
    closed: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.timeout < math.inf:
            raise InputError(f"expected timeout >= 0 in seconds, got {self.timeout}")
        if self.attempts < 1:
            raise InputError(f"expected attempts >= 1, got {self.attempts}")
        if self.token is None:
            return
        if not _TOKEN.fullmatch(self.token):
            raise InputError("expected a token of printable ASCII characters without spaces")
        if self.tls is None and not self.insecure and not _LOOPBACK.fullmatch(self.target):
            raise InputError(
                f"refused to send a token unencrypted to {self.target}: use TLS, or say insecure"
            )

    @property
    def metadata(self) -> Metadata:
        """What each call carries besides its request."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def begin(self) -> Attempts:
        """A call begins."""
        return Attempts(self.timeout, self.attempts, self.closed)


def _content(file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error

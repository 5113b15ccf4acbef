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
# of a target and skip one that is stopping. Only `retries` tries again; gRPC itself does so only
# for calls that no server has seen. A server that comes back, under its old address or a new one of
# the same name, is found within the time of the attempts: by default gRPC would wait up to two
# minutes before it connects again, and thirty seconds before it resolves a name again.
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
    """Encrypt, and check that the server is who it claims to be.

    The server's certificate must be for the host that the target names. Not covered: revocation.

    Attributes:
        ca: certificates of the authorities to trust, in PEM; None means those that gRPC trusts.
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
            raise InputError("give both a client certificate and its key, got only one of them")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            InputError: one cannot be read or is not PEM, or the key does not fit the certificate.
        """
        ca, key, certificate = map(_content, (self.ca, self.key, self.certificate))
        self._check()
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def _check(self) -> None:
        """Read the files with Python's TLS, since gRPC would only report a failed connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise InputError(f"expected certificates in PEM format in {self.ca}") from None
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError:
            raise InputError(
                "expected a certificate and its private key, both in PEM format and the key not "
                f"encrypted, got {self.certificate} and {self.key}"
            ) from None


@dataclass(frozen=True)
class Connection:
    """How to reach one server; see ``Client`` for the arguments.

    Raises:
        InputError: a value makes no sense, or others could read the token on its way.
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
            raise InputError(f"expected timeout >= 0 seconds and finite, got {self.timeout}")
        if self.attempts < 1:
            raise InputError(f"expected attempts >= 1, got {self.attempts}")
        if self.token is None:
            return
        if not _TOKEN.fullmatch(self.token):
            raise InputError("expected a token of printable ASCII characters, without spaces")
        if self.tls is None and not self.insecure and not _LOOPBACK.fullmatch(self.target):
            raise InputError(
                f"refusing to send the token unencrypted to {self.target}: use TLS, or, if the "
                "network is trusted, insecure"
            )

    @property
    def metadata(self) -> Metadata:
        """The metadata that goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def begin(self, more_seconds: float = 0.0) -> Attempts:
        """The attempts of a call that begins now, and that may take longer than others."""
        return Attempts(self.timeout + more_seconds, self.attempts, self.closed)


def _content(file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error

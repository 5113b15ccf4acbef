"""TLS, the limits of connections, and where the server may listen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attnpriv.errors import InputError
from attnpriv_server.address import Address
from attnpriv_server.limits import Limits
from attnpriv_server.reloading import Reloaded

# gRPC's TLS accepts other keys at the start and then fails in every handshake.
CURVES = ("secp256r1", "secp384r1")
CERTIFICATE_NAMES = ("x509_common_name", "x509_subject_alternative_name")


def server_credentials(
    certificate: Path, key: Path, client_ca: Path | None = None
) -> grpc.ServerCredentials:
    """TLS by the certificate that is in the files at the time of each handshake.

    Claim: with ``client_ca``, every connection belongs to a client that has the key of a
    certificate which one of those authorities signed for clients and which had not expired at its
    beginning. Not covered: revocation lists, and what becomes of the certificate later;
    ``Limits.connection_seconds`` bounds that.

    Args:
        certificate: the server's certificate and those between it and its authority, in PEM.
        key: its private key in PEM, not encrypted: RSA, or ECDSA with P-256 or P-384.
        client_ca: the authorities of clients, in PEM; None asks clients for no certificate.

    Raises:
        InputError: a file cannot be read or used, the key does not belong to the certificate, or
            the certificate is not valid at this time. Later the last good files stay in force.
    """
    paths = [certificate, key] if client_ca is None else [certificate, key, client_ca]
    files = Reloaded("certificate", paths, _configuration, seconds=0)
    # Each handshake gets the configuration as a new one, changed or not: TLS sessions cannot be
    # resumed then. Resuming one would let a client in whose certificate has expired.
    return grpc.dynamic_ssl_server_credentials(files.get(), files.get, client_ca is not None)


def certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The common name and the alternative names of a client certificate that was verified."""
    found = (name for key in CERTIFICATE_NAMES for name in auth_context.get(key, ()))
    return tuple(dict.fromkeys(name.decode(errors="replace") for name in found if name))


def check_exposure(listen: Address, tls: bool, authentication: bool, insecure: bool) -> None:
    """Refuse to listen where others would find the server unprotected.

    Args:
        listen: the address.
        tls: whether connections are encrypted.
        authentication: whether callers have to show a token or a certificate.
        insecure: whether the operator accepts to do without.

    Raises:
        InputError: other machines may reach the address, and something is missing.
    """
    wanted = {
        "encryption (--tls-certificate)": tls,
        "authentication (--principals or --tls-client-ca)": authentication,
    }
    missing = " and ".join(name for name, there in wanted.items() if not there)
    if missing and not insecure and not listen.is_loopback:
        raise InputError(
            f"refusing to listen on {listen} without {missing}; listen on 127.0.0.1, or pass "
            "--insecure to accept that strangers may read texts and ask for answers"
        )


def channel_options(limits: Limits) -> list[tuple[str, int]]:
    """The limits that gRPC itself enforces, as options of a server."""
    # gRPC cancels calls at random once 1000 have not been begun, whoever they belong to; the queues
    # behind refuse with a status instead.
    pending = min(limits.connections * limits.streams, 2**31 - 1)
    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        # Of sizes between the two, gRPC refuses some at random.
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams),
        # Calls that have ended count until their memory is freed: with less room for them, clients
        # that keep the limit are refused calls at random.
        ("grpc.http2.max_deallocating_streams", min(10 * limits.streams, 2**31 - 1)),
        ("grpc.server.max_pending_requests", pending),
        ("grpc.server.max_pending_requests_hard_limit", pending),
        ("grpc.server_handshake_timeout_ms", 1000 * limits.handshake_seconds),
        ("grpc.max_connection_idle_ms", 1000 * limits.idle_seconds),
        ("grpc.max_connection_age_ms", 1000 * limits.connection_seconds),
        ("grpc.max_connection_age_grace_ms", 1000 * limits.stream_seconds),
        ("grpc.keepalive_time_ms", 1000 * limits.silence_seconds),
        # grpc.keepalive_timeout_ms has no effect.
        ("grpc.http2.ping_timeout_ms", 1000 * limits.silence_seconds),
    ]


def _configuration(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
    chain, key, *client_ca = contents
    _check_pair(_certificates(chain, "the certificate")[0], key)
    for authorities in client_ca:
        _certificates(authorities, "the client CA")
    return grpc.ssl_server_certificate_configuration(
        [(key, chain)], client_ca[0] if client_ca else None
    )


def _check_pair(certificate: x509.Certificate, key: bytes) -> None:
    private_key = _private_key(key)
    if private_key.public_key() != certificate.public_key():
        raise InputError("the key does not belong to the certificate")
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= datetime.now(UTC) <= end:
        raise InputError(f"the certificate is valid from {start:%F %T} to {end:%F %T} UTC, not now")


def _certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InputError(f"{what} is not PEM, or damaged") from None


def _private_key(pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputError("the key is encrypted; give one without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError("the key is not PEM, or damaged") from None
    match key:
        case rsa.RSAPrivateKey():
            return key
        case ec.EllipticCurvePrivateKey() if key.curve.name in CURVES:
            return key
    raise InputError("expected an RSA key, or an ECDSA key on P-256 or P-384")

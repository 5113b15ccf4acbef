"""TLS over real sockets."""

from __future__ import annotations

import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding

from attnpriv.errors import InputError
from attnpriv_server.transport import certificate_names, server_credentials
from tests.server.transport.callers import SECONDS, check, list_models, plain, secure
from tests.server.transport.certificates import CLIENTS, SERVERS, Pair, key_pem, new_pair


def test_tls_serves_who_trusts_the_authority(serve, files, authority, foreign) -> None:
    port = serve(server_credentials(files.certificate, files.key))

    assert check(secure(port, authority)) == "OK"
    assert check(secure(port, foreign)) == "UNAVAILABLE"
    assert check(plain(port)) == "UNAVAILABLE"


def test_plain_text_is_what_a_server_without_tls_speaks(serve, authority) -> None:
    port = serve()

    assert check(plain(port)) == "OK"
    assert check(secure(port, authority)) == "UNAVAILABLE"


def test_a_client_authority_lets_only_its_certificates_in(serve, files, authority, foreign) -> None:
    port = serve(server_credentials(files.certificate, files.key, files.client_ca))

    def came_in(client: Pair | None) -> str:
        return check(secure(port, authority, client))

    assert came_in(new_pair("bot", authority, CLIENTS)) == "OK"
    assert came_in(None) == "UNAVAILABLE"
    assert came_in(new_pair("bot", foreign, CLIENTS)) == "UNAVAILABLE"
    assert came_in(new_pair("bot")) == "UNAVAILABLE"
    assert came_in(new_pair("bot", authority, SERVERS)) == "UNAVAILABLE"
    assert came_in(new_pair("bot", authority, CLIENTS, days=(-2, -1))) == "UNAVAILABLE"
    assert came_in(new_pair("bot", authority, CLIENTS, days=(1, 2))) == "UNAVAILABLE"
    leaf = new_pair("bot", authority, CLIENTS)
    assert came_in(new_pair("bot", leaf, CLIENTS)) == "UNAVAILABLE"


def test_sessions_are_not_resumed(serve, files, authority) -> None:
    """Or a client would come in whose certificate has expired since."""
    client = new_pair("bot", authority, CLIENTS)
    files.client_certificate.write_bytes(client.pem + client.key_pem)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.load_cert_chain(files.client_certificate)
    context.set_alpn_protocols(["h2"])
    port = serve(server_credentials(files.certificate, files.key, files.client_ca))

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession, bool]:
        with (
            socket.create_connection(("127.0.0.1", port), SECONDS) as connection,
            context.wrap_socket(
                connection, server_hostname="localhost", session=session
            ) as wrapped,
        ):
            assert wrapped.recv(1)  # after the ticket of the session
            return wrapped.session, wrapped.session_reused

    session, _ = connect(None)
    assert session.has_ticket
    assert not connect(session)[1]


def test_a_renewed_certificate_serves_new_connections(serve, files, authority, foreign) -> None:
    port = serve(server_credentials(files.certificate, files.key, files.client_ca))
    old, new = (new_pair("bot", issuer, CLIENTS) for issuer in (authority, foreign))
    with secure(port, authority, old) as kept:
        assert list_models(kept) == "OK"

        files.write(new_pair("localhost", foreign), foreign.pem)

        assert check(secure(port, foreign, new)) == "OK"
        assert check(secure(port, authority, old)) == "UNAVAILABLE"
        assert check(secure(port, foreign, old)) == "UNAVAILABLE"
        assert list_models(kept) == "OK"


def test_a_broken_renewal_keeps_the_old_certificate(serve, files, authority, caplog) -> None:
    port = serve(server_credentials(files.certificate, files.key))
    renewed = new_pair("localhost", authority)

    files.certificate.write_bytes(renewed.pem)  # the key follows later
    assert [check(secure(port, authority)) for _ in range(2)] == ["OK", "OK"]
    files.certificate.unlink()
    assert check(secure(port, authority)) == "OK"

    fields = [record.fields for record in caplog.records if record.msg == "reload"]
    assert [line["reason"] for line in fields] == [
        "the key does not belong to the certificate",
        "cannot read server.pem: No such file or directory",
    ]
    files.write(renewed)
    assert check(secure(port, authority)) == "OK"


def with_unknown_kind_of_key(authority: Pair) -> bytes:
    """An RSA certificate that says that its key is of another algorithm."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = new_pair("localhost", authority, key=key).pem
    found = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    rsa_encryption = bytes.fromhex("2a864886f70d010101")
    assert rsa_encryption in found
    return ssl.DER_cert_to_PEM_cert(
        found.replace(rsa_encryption, rsa_encryption[:-1] + b"\x63")
    ).encode()


def test_files_that_cannot_be_meant_are_refused(tmp_path, files, authority, server_pair) -> None:
    def refused(message: str, **contents: bytes) -> None:
        files.write(server_pair, authority.pem)
        for name, content in contents.items():
            getattr(files, name).write_bytes(content)
        with pytest.raises(InputError, match=message) as refusal:
            server_credentials(files.certificate, files.key, files.client_ca)
        assert str(refusal.value).startswith(f"certificate {files.certificate}, {files.key}, ")

    other = ec.generate_private_key(ec.SECP256R1())
    locked = key_pem(server_pair.key, BestAvailableEncryption(b"secret"))
    late = new_pair("localhost", authority, days=(-2, -1), key=server_pair.key)
    early = new_pair("localhost", authority, days=(1, 2), key=server_pair.key)
    p521, edwards = ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate()
    refused("the certificate is not PEM", certificate=b"")
    refused("the certificate is not PEM", certificate=server_pair.key_pem)
    refused("the certificate is not PEM", certificate=server_pair.pem[:200])
    refused("the key is not PEM", key=server_pair.pem)
    refused("the key is not PEM", key=b"\xff")
    refused("the key is encrypted", key=locked)
    refused("the key does not belong to the certificate", key=key_pem(other))
    refused("the client CA is not PEM", client_ca=b"")
    refused(r"valid from \d{4}-\d\d-\d\d .* UTC, not now", certificate=late.pem)
    refused(r"valid from \d{4}-\d\d-\d\d .* UTC, not now", certificate=early.pem)
    refused("expected an RSA key, or an ECDSA key", key=key_pem(p521))
    refused("expected an RSA key, or an ECDSA key", key=key_pem(edwards))
    refused("cannot be used .UnsupportedAlgorithm", certificate=with_unknown_kind_of_key(authority))
    with pytest.raises(InputError, match=r"cannot read none\.key: No such file"):
        server_credentials(files.certificate, tmp_path / "none.key")


def test_rsa_keys_serve_too(serve, files, authority) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    files.write(new_pair("localhost", authority, key=key))

    assert check(secure(serve(server_credentials(files.certificate, files.key)), authority)) == "OK"


def test_names_of_a_certificate() -> None:
    context = {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"bot"],
        "x509_subject_alternative_name": [b"bot.example.com", b"bot", b"\xff"],
    }

    assert certificate_names(context) == ("bot", "bot.example.com", "�")
    assert certificate_names({"x509_common_name": [b""]}) == ()
    assert certificate_names({}) == ()

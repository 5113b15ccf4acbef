"""TLS, client certificates and tokens: towards scripted servers, and towards the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from attnpriv.errors import InputError
from attnpriv_client import (
    Client,
    PermissionDeniedError,
    Tls,
    UnauthenticatedError,
    UnavailableError,
)

TOKEN = "a-token"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, and the files that hold them."""

    body: x509.Certificate
    private: ec.EllipticCurvePrivateKey
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def new_pair(tmp_path_factory):
    """Make a certificate for a name, signed by an authority or by itself."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, issuer: Pair | None = None) -> Pair:
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        today = datetime.now(UTC)
        body = (
            x509.CertificateBuilder(
                issuer.body.subject if issuer else subject,
                subject,
                private.public_key(),
                x509.random_serial_number(),
                today - timedelta(days=1),
                today + timedelta(days=1),
            )
            .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(issuer.private if issuer else private, hashes.SHA256())
        )
        pair = Pair(body, private, folder / f"{name}.pem", folder / f"{name}.key")
        pair.certificate.write_bytes(body.public_bytes(Encoding.PEM))
        pair.key.write_bytes(key_pem(private))
        return pair

    return make


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.fixture(scope="module")
def authority(new_pair) -> Pair:
    return new_pair("authority")


@pytest.fixture(scope="module")
def server(new_pair, authority) -> Pair:
    return new_pair("localhost", authority)


@pytest.fixture(scope="module")
def person(new_pair, authority) -> Pair:
    return new_pair("person", authority)


@pytest.fixture
def serve_tls(serve, echo, authority, server):
    """Start a scripted server with TLS; its address."""

    def start(ask_for_certificates: bool = False) -> str:
        pair = (server.key.read_bytes(), server.certificate.read_bytes())
        ca = authority.certificate.read_bytes() if ask_for_certificates else None
        return serve(echo, grpc.ssl_server_credentials([pair], ca, ask_for_certificates))

    return start


def test_texts_and_token_arrive_over_tls(ask, serve_tls, echo, authority) -> None:
    tls = Tls(ca=authority.certificate)

    answers = ask(serve_tls(), "predict", "model", ["text"], tls=tls, token=TOKEN)

    assert answers[0].label == "text"
    assert echo.metadata[0]["authorization"] == f"Bearer {TOKEN}"


def test_a_stream_carries_the_token_too(ask, serve_tls, echo, authority) -> None:
    tls = Tls(ca=authority.certificate)

    ask(serve_tls(), "predict_stream", "model", ["text"], tls=tls, token=TOKEN)

    assert echo.metadata[0]["authorization"] == f"Bearer {TOKEN}"


def test_only_the_server_of_that_name_and_authority_is_spoken_to(
    ask, serve_tls, echo, authority, person
) -> None:
    target = serve_tls()
    own, right = Tls(ca=person.certificate), Tls(ca=authority.certificate)

    for tls, address in (
        (None, target),
        (Tls(), target),
        (own, target),
        (right, target.replace("localhost", "127.0.0.1")),
    ):
        with pytest.raises(UnavailableError):
            ask(address, "predict", "model", ["text"], tls=tls, token=TOKEN, attempts=1)
    assert not echo.requests


def test_a_client_certificate_lets_its_holder_in(
    ask, serve_tls, echo, authority, person, new_pair
) -> None:
    target = serve_tls(ask_for_certificates=True)
    stranger = new_pair("stranger", new_pair("another authority"))

    known = Tls(authority.certificate, person.certificate, person.key)
    assert ask(target, "predict", "model", ["text"], tls=known)[0].label == "text"
    for tls in (
        Tls(authority.certificate),
        Tls(authority.certificate, stranger.certificate, stranger.key),
    ):
        with pytest.raises(UnavailableError):
            ask(target, "predict", "model", ["text"], tls=tls, attempts=1)


@pytest.mark.parametrize(
    "target",
    [
        "example.org:50051",
        "10.0.0.1:50051",
        "localhost.example.org:50051",
        "127.0.0.1.example.org:50051",
        "127.0.0.1:50051@example.org:50051",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:50051,10.0.0.1:50051",
        "localhost://example.org",
    ],
)
def test_a_token_does_not_leave_the_machine_readable(target) -> None:
    with pytest.raises(InputError, match="refusing to send the token unencrypted") as caught:
        Client(target, token=TOKEN)
    assert TOKEN not in str(caught.value)
    Client(target, token=TOKEN, tls=Tls()).close()
    Client(target, token=TOKEN, insecure=True).close()


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "unix:/tmp/socket"]
)
def test_a_token_may_travel_within_the_machine(target) -> None:
    Client(target, token=TOKEN).close()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "naïve"])
def test_tokens_that_cannot_be_sent_are_not_shown(token) -> None:
    with pytest.raises(InputError, match="expected a token of printable ASCII") as caught:
        Client("localhost:1", token=token)
    assert not token or token not in str(caught.value)


def test_files_of_tls_that_cannot_be_used(authority, server, person, tmp_path) -> None:
    encrypted, none = tmp_path / "encrypted.key", tmp_path / "none"
    encrypted.write_bytes(key_pem(person.private, b"password"))

    for tls, message in (
        (Tls(ca=none), f"cannot read {none}"),
        (Tls(ca=person.key), "expected certificates in PEM format in"),
        (
            Tls(None, person.certificate, server.key),
            "expected a certificate and its private key, both",
        ),
        (
            Tls(None, person.certificate, encrypted),
            "expected a certificate and its private key, both",
        ),
        (Tls(None, person.key, person.key), "expected a certificate and its private key, both"),
    ):
        with pytest.raises(InputError, match=message):
            Client("localhost:1", tls=tls)
    with pytest.raises(InputError, match="got only one of them"):
        Tls(certificate=person.certificate)


def test_the_command_takes_the_token_from_a_file_or_the_environment(
    output, serve_tls, echo, authority, tmp_path, monkeypatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    options = ["--target", serve_tls(), "--tls-ca", str(authority.certificate)]
    monkeypatch.setenv("ATTNPRIV_TOKEN", "from-the-environment")

    output("predict", "--model", "echo", "text", *options)
    output("predict", "--model", "echo", "text", *options, "--token-file", str(file))

    assert [each["authorization"] for each in echo.metadata] == [
        "Bearer from-the-environment",
        "Bearer from-the-file",
    ]


@pytest.mark.parametrize("place", ["file", "environment"])
class TestATokenOfTheCommand:
    """It is read the same way from both places."""

    @pytest.fixture
    def give(self, place, tmp_path, monkeypatch):
        """Put a token there; the options that say so, and how errors call the place."""

        def give(content: str) -> tuple[list[str], str]:
            if place == "environment":
                monkeypatch.setenv("ATTNPRIV_TOKEN", content)
                return [], "ATTNPRIV_TOKEN"
            file = tmp_path / "token"
            file.write_text(content)
            return ["--token-file", str(file)], str(file)

        return give

    @pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", " \t{} \n\n"])
    def test_white_space_around_it_is_not_sent(self, output, serve, echo, give, around) -> None:
        options, _ = give(around.format(TOKEN))

        output("predict", "--target", serve(echo), "--model", "echo", "text", *options)

        assert echo.metadata[0]["authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ("secret one", "white space inside it"),
            ("secret\none\n", "white space inside it"),
            ("", "nothing"),
            (" \n", "nothing"),
        ],
    )
    def test_anything_beside_it_is_refused_and_not_shown(
        self, command, give, content, found
    ) -> None:
        options, source = give(content)

        done = command("models", "--target", "127.0.0.1:1", *options)

        assert (done.code, done.stdout) == (2, "")
        assert done.stderr == (
            f"error: expected one token and nothing else in {source}, got {found}\n"
        )


def test_the_command_refuses_to_send_a_token_readable(command, monkeypatch) -> None:
    monkeypatch.setenv("ATTNPRIV_TOKEN", TOKEN)

    done = command("models", "--target", "example.org:50051")

    assert done.code == 2
    assert "refusing to send the token unencrypted to example.org:50051" in done.stderr
    assert TOKEN not in done.stderr


@pytest.fixture(scope="module")
def secured(run_server, server, tmp_path_factory) -> Iterator[str]:
    """A real server with TLS and one principal that may ask for predictions."""
    principals = tmp_path_factory.mktemp("secrets") / "principals.toml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    principals.write_text(
        f'[[principal]]\nname = "a"\nroles = ["predict"]\ntokens = [{{ sha256 = "{digest}" }}]\n'
    )
    files = ["--tls-certificate", server.certificate, "--tls-key", server.key]
    with run_server(*files, "--principals", principals) as address:
        yield address.replace("127.0.0.1", "localhost")


def test_the_real_server_lets_in_who_has_a_token(ask, secured, run, authority) -> None:
    tls = Tls(authority.certificate)
    texts = [f"text {n}" for n in range(100)]

    answers = ask(secured, "predict_stream", run.name, texts, tls=tls, token=TOKEN)

    assert [each.version for each in answers] == ["1"] * 100
    assert ask(secured, "health", tls=tls, token=TOKEN)
    with pytest.raises(PermissionDeniedError):
        ask(secured, "explain", run.name, "text", tls=tls, token=TOKEN)
    for token in (None, "another"):
        for method, asked in (("predict", texts), ("predict_stream", texts), ("explain", "text")):
            with pytest.raises(UnauthenticatedError):
                ask(secured, method, run.name, asked, tls=tls, token=token)

"""TLS, authentication and limits over real sockets, with certificates made here."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server import access as access_module
from attnpriv_server import streams
from attnpriv_server.access import Access, new_token
from attnpriv_server.address import Address
from attnpriv_server.core import Core
from attnpriv_server.domain import Role
from attnpriv_server.policy import Limits
from attnpriv_server.transport import certificate_names, check_exposure, server_credentials
from attnpriv_server.wire import Server

CLIENTS = ExtendedKeyUsageOID.CLIENT_AUTH
SERVERS = ExtendedKeyUsageOID.SERVER_AUTH
SECONDS = 20.0  # far beyond what any call here takes


# Certificates


@dataclass(frozen=True)
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


def key_pem(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def new_pair(
    name: str,
    issuer: Pair | None = None,
    usage: x509.ObjectIdentifier = SERVERS,
    days: tuple[float, float] = (-1, 1),
    key=None,
) -> Pair:
    """A certificate for a name; by itself it is an authority."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start, end = (datetime.now(UTC) + timedelta(days=day) for day in days)
    builder = (
        x509.CertificateBuilder(subject_name=subject, public_key=key.public_key())
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return new_pair("authority")


@pytest.fixture(scope="module")
def foreign() -> Pair:
    """Another authority by the same name."""
    return new_pair("authority")


@pytest.fixture(scope="module")
def server_pair(authority) -> Pair:
    return new_pair("localhost", authority)


@dataclass(frozen=True)
class Files:
    """What a server is started with, and a client's own."""

    certificate: Path
    key: Path
    client_ca: Path
    client_certificate: Path

    def write(self, pair: Pair, client_ca: bytes = b"") -> None:
        self.certificate.write_bytes(pair.pem)
        self.key.write_bytes(pair.key_pem)
        self.client_ca.write_bytes(client_ca)


@pytest.fixture
def files(tmp_path, server_pair, authority) -> Files:
    names = ("server.pem", "server.key", "clients.pem", "client.pem")
    files = Files(*(tmp_path / name for name in names))
    files.write(server_pair, authority.pem)
    return files


# Servers and clients

Serve = Callable[..., int]


@pytest.fixture
def serve(make_core) -> Iterator[Serve]:
    """Starts servers without models and returns their ports."""
    with ExitStack() as stack:

        def start(credentials=None, **kwargs) -> int:
            return stack.enter_context(serving(make_core({}, **kwargs), credentials))

        yield start


@contextmanager
def serving(core: Core, credentials: grpc.ServerCredentials | None) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def start() -> Server:
        server = Server(core, "127.0.0.1:0", credentials)
        await server.start()
        return server

    try:
        server = run(start())
        try:
            yield server.port
        finally:
            run(server.stop(grace=0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def plain(port: int) -> grpc.Channel:
    # Without its own pool a channel shares connections with others to the same port.
    return grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])


def secure(port: int, authority: Pair, client: Pair | None = None) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        authority.pem, client and client.key_pem, client and client.pem
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(f"localhost:{port}", credentials, options)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def check(channel: grpc.Channel) -> str:
    """How a call of the health service ends; closes the channel."""
    with channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return code_of(lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS))


def list_models(channel: grpc.Channel, token: str | None = None) -> str:
    metadata = None if token is None else bearer(token)
    stub = AttnprivServiceStub(channel)
    return code_of(lambda: stub.ListModels(pb.ListModelsRequest(), SECONDS, metadata))


# TLS


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
        "the key is not the certificate's",
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
    refused("the key is not the certificate's", key=key_pem(other))
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


# Where the server listens


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


# Who may call


@dataclass(frozen=True)
class Principals:
    """A principals file that is read again at every request."""

    path: Path

    def write(self, *tables: str) -> None:
        self.path.write_text("".join(tables))

    def access(self) -> Access:
        return Access.from_file(self.path)


def table(name: str, roles: str, *tokens: str, certificate: str = "") -> str:
    digests = ", ".join(
        f'{{ sha256 = "{hashlib.sha256(token.encode()).hexdigest()}" }}' for token in tokens
    )
    names = f'certificate_names = ["{certificate}"]\n' if certificate else ""
    listed = ", ".join(f'"{role}"' for role in roles.split())
    return f'[[principal]]\nname = "{name}"\nroles = [{listed}]\ntokens = [{digests}]\n{names}'


@pytest.fixture
def principals(tmp_path, monkeypatch) -> Principals:
    monkeypatch.setattr(access_module, "CHECK_SECONDS", 0.0)
    return Principals(tmp_path / "principals.toml")


EVERY_ROLE = " ".join(Role)


def test_tokens_over_the_wire_are_rotated_and_revoked_without_a_restart(serve, principals) -> None:
    (old, _), (new, _) = new_token(), new_token()
    principals.write(table("bot", "models", old))
    with plain(serve(access=principals.access())) as channel:

        def codes() -> list[str]:
            return [list_models(channel, token) for token in (old, new, None)]

        assert codes() == ["OK", "UNAUTHENTICATED", "UNAUTHENTICATED"]
        principals.write(table("bot", "models", old, new))
        assert codes() == ["OK", "OK", "UNAUTHENTICATED"]
        principals.write(table("bot", "models", new))
        assert codes() == ["UNAUTHENTICATED", "OK", "UNAUTHENTICATED"]
        principals.path.unlink()
        assert codes() == ["UNAUTHENTICATED", "OK", "UNAUTHENTICATED"]
        principals.write(table("bot", "predict", new))
        assert codes() == ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNAUTHENTICATED"]
        principals.write(table("bot", "models"))
        assert codes() == ["UNAUTHENTICATED"] * 3


def open_streams(channel: grpc.Channel, token: str) -> dict[str, grpc.Call]:
    """A call of each method that can stay open, each with its first answer."""
    metadata = bearer(token)
    never = {"Reflection": threading.Event(), "PredictStream": threading.Event()}

    def then_nothing(name: str, request: Message) -> Iterator[Message]:
        yield request
        never[name].wait(SECONDS)

    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    calls = {
        "Watch": health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), SECONDS, metadata
        ),
        "Reflection": reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            then_nothing("Reflection", ask), SECONDS, metadata
        ),
        "PredictStream": AttnprivServiceStub(channel).PredictStream(
            then_nothing("PredictStream", pb.PredictStreamRequest()), SECONDS, metadata
        ),
    }
    for call in calls.values():
        assert next(call)
    for name, event in never.items():
        calls[name].add_callback(event.set)
    return calls


def ends(calls: dict[str, grpc.Call]) -> dict[str, str]:
    """How the calls end, by themselves."""
    return {name: code_of(lambda call=call: list(call)) for name, call in calls.items()}


def test_open_streams_end_once_their_caller_may_not_ask_any_more(serve, principals) -> None:
    mine, other = new_token()[0], new_token()[0]
    principals.write(table("mine", EVERY_ROLE, mine), table("other", EVERY_ROLE, other))
    with plain(serve(access=principals.access())) as channel:
        calls, others = open_streams(channel, mine), open_streams(channel, other)
        principals.write(table("mine", "predict", mine), table("other", EVERY_ROLE, other))
        assert code_of(lambda: list(calls.pop("Reflection"))) == "PERMISSION_DENIED"
        assert all(call.is_active() for call in (*calls.values(), *others.values()))

        principals.write(table("mine", EVERY_ROLE), table("other", EVERY_ROLE, other))

        assert ends(calls) == dict.fromkeys(calls, "UNAUTHENTICATED")
        assert all(call.is_active() for call in others.values())
        principals.write(table("other", EVERY_ROLE))
        assert ends(others) == dict.fromkeys(others, "UNAUTHENTICATED")


def test_open_streams_end_when_their_token_expires(serve, principals) -> None:
    token = new_token()[0]
    soon = datetime.now(UTC) + timedelta(seconds=3)
    entry = table("bot", EVERY_ROLE, token)
    principals.write(entry.replace('" }', f'", expires = {soon.isoformat()} }}'))
    with plain(serve(access=principals.access())) as channel:
        calls = open_streams(channel, token)
        assert ends(calls) == dict.fromkeys(calls, "UNAUTHENTICATED")


def test_the_promised_second_has_room_for_both_checks() -> None:
    assert access_module.CHECK_SECONDS + streams.CHECK_SECONDS < 1


def test_other_forms_of_authorization_let_nobody_in(serve, principals) -> None:
    token, _ = new_token()
    principals.write(table("bot", "models", token))
    with plain(serve(access=principals.access())) as channel:
        stub = AttnprivServiceStub(channel)
        for key, value in [
            ("authorization", token),
            ("authorization", f"Basic {token}"),
            ("authorization", "Bearer "),
            ("authorization", ""),
            ("token", token),
        ]:
            call = stub.ListModels.future(pb.ListModelsRequest(), SECONDS, [(key, value)])
            assert call.code().name == "UNAUTHENTICATED"
            assert call.details() == "this needs a valid bearer token or client certificate"


def test_a_certificate_names_a_principal_and_a_token_must_agree(
    serve, principals, files, authority
) -> None:
    bot, auditor = new_token()[0], new_token()[0]
    principals.write(
        table("bot", "models", bot, certificate="bot.example.com"), table("auditor", "", auditor)
    )
    credentials = server_credentials(files.certificate, files.key, files.client_ca)
    port = serve(credentials, access=principals.access())

    def codes(name: str) -> list[str]:
        with secure(port, authority, new_pair(name, authority, CLIENTS)) as channel:
            return [list_models(channel, token) for token in (None, bot, auditor)]

    assert codes("bot.example.com") == ["OK", "OK", "UNAUTHENTICATED"]
    assert codes("stranger.example.com") == ["UNAUTHENTICATED"] * 3


def test_a_token_that_is_revoked_ends_what_a_stream_answers(serve, principals) -> None:
    token, _ = new_token()
    principals.write(table("bot", "predict", token))
    asked = threading.Semaphore(0)

    def requests() -> Iterator[pb.PredictStreamRequest]:
        for number in range(2):
            asked.acquire()
            yield pb.PredictStreamRequest(number=number)

    with plain(serve(access=principals.access())) as channel:
        stream = AttnprivServiceStub(channel).PredictStream(
            requests(), metadata=bearer(token), timeout=SECONDS
        )
        asked.release()
        first = next(stream)
        principals.write(table("bot", "predict"))
        asked.release()
        second = next(stream)

    codes = [answer.error.code for answer in (first, second)]
    assert codes == [
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        grpc.StatusCode.UNAUTHENTICATED.value[0],
    ]


# Every method there is


def ask_reflection(channel: grpc.Channel, token: str, **question: str):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**question)])
    return next(stub.ServerReflectionInfo(requests, timeout=SECONDS, metadata=bearer(token)))


def every_method(channel: grpc.Channel, token: str) -> Iterator[tuple[str, bool]]:
    """The path of each method of each service, and whether answers come as a stream."""
    listed = ask_reflection(channel, token, list_services="").list_services_response.service
    for service in listed:
        found = ask_reflection(channel, token, file_containing_symbol=service.name)
        for raw in found.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(raw)
            for each in file.service:
                if f"{file.package}.{each.name}" == service.name:
                    for method in each.method:
                        yield f"/{service.name}/{method.name}", method.server_streaming


def call_raw(
    channel: grpc.Channel, path: str, streaming: bool, token: str | None, raw: bytes
) -> str:
    """How a call that sends some bytes ends; a stream is not read past its first answer."""
    metadata = None if token is None else bearer(token)
    if streaming:
        call = channel.stream_stream(path)(iter([raw]), SECONDS, metadata)
        return code_of(lambda: next(call))
    return code_of(lambda: channel.unary_unary(path)(raw, SECONDS, metadata))


@pytest.fixture
def guarded(serve, principals) -> Iterator[tuple[grpc.Channel, str, str]]:
    """A channel, a token that may do everything, and one that may do nothing."""
    mighty, idle = new_token()[0], new_token()[0]
    principals.write(table("mighty", EVERY_ROLE, mighty), table("idle", "", idle))
    with plain(serve(access=principals.access())) as channel:
        yield channel, mighty, idle


def test_no_method_of_any_service_answers_a_stranger(guarded) -> None:
    channel, mighty, _ = guarded
    methods = list(every_method(channel, mighty))
    assert {path.split("/")[1] for path, _ in methods} >= {
        "attnpriv.v1.AttnprivService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert len(methods) >= 14

    for path, streaming in methods:
        for token in (None, "", mighty[:-1]):
            for raw in (b"", b"\xff\xff"):
                assert call_raw(channel, path, streaming, token, raw) == "UNAUTHENTICATED", path
        assert call_raw(channel, path, streaming, mighty, b"") != "UNAUTHENTICATED", path


def test_a_stranger_is_refused_before_its_message_is_read(serve, principals) -> None:
    principals.write(table("bot", "models"))
    begun = headers("/attnpriv.v1.AttnprivService/Predict")[:-1]
    with socket.create_connection(
        ("127.0.0.1", serve(access=principals.access())), SECONDS
    ) as connection:
        connection.sendall(PREFACE + SETTINGS + begun)
        answer = b""
        while b"grpc-status" not in answer:
            part = connection.recv(65536)
            assert part
            answer += part

    assert b"this needs a valid bearer token" in answer


def test_a_principal_without_roles_learns_only_how_the_server_is(guarded) -> None:
    channel, mighty, idle = guarded

    allowed = {
        path.rpartition("/")[2]
        for path, streaming in every_method(channel, mighty)
        if call_raw(channel, path, streaming, idle, b"") == "OK"
    }

    assert allowed <= {
        "Check",
        "Watch",
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
    }


@pytest.mark.parametrize(
    ("role", "method"),
    [
        ("predict", "/attnpriv.v1.AttnprivService/Predict"),
        ("predict", "/attnpriv.v1.AttnprivService/PredictStream"),
        ("predict", "/inference.GRPCInferenceService/ModelInfer"),
        ("explain", "/attnpriv.v1.AttnprivService/Explain"),
        ("models", "/attnpriv.v1.AttnprivService/ListModels"),
        ("models", "/attnpriv.v1.AttnprivService/GetModel"),
        ("models", "/inference.GRPCInferenceService/ModelMetadata"),
        ("models", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    ],
)
def test_each_method_asks_for_its_role_before_it_reads_the_request(
    serve, principals, role, method
) -> None:
    others = " ".join(other for other in Role if other != role)
    holder, other = new_token()[0], new_token()[0]
    principals.write(table("holder", role, holder), table("other", others, other))
    with plain(serve(access=principals.access())) as channel:
        stream = method.endswith(("Stream", "Info"))
        for raw in (b"", b"\xff\xff"):
            assert call_raw(channel, method, stream, other, raw) == "PERMISSION_DENIED"
        found = call_raw(channel, method, stream, holder, b"")
        assert found in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")


# Limits


def test_large_messages_and_headers_are_refused_however_they_are_packed(serve) -> None:
    limits = Limits(message_bytes=10_000, metadata_bytes=20_000)
    with plain(serve(limits=limits)) as channel:
        echo = channel.unary_unary("/attnpriv.v1.AttnprivService/Predict")

        def send(size: int, compression=None, header: int = 0) -> str:
            metadata = [("x", "y" * header)]
            return code_of(lambda: echo(b"\xff" * size, SECONDS, metadata, None, None, compression))

        assert send(10_000) == "INVALID_ARGUMENT"
        assert send(10_001) == "RESOURCE_EXHAUSTED"
        assert send(1_000_000, grpc.Compression.Gzip) == "RESOURCE_EXHAUSTED"
        assert {send(1, header=19_000) for _ in range(5)} == {"INVALID_ARGUMENT"}
        assert {send(1, header=20_000) for _ in range(5)} == {"RESOURCE_EXHAUSTED"}


def test_connections_beyond_the_limit_find_no_place_until_one_is_free(serve) -> None:
    port = serve(limits=Limits(connections=2))
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]

    assert check(plain(port)) == "UNAVAILABLE"
    for each in sockets:
        each.close()
    with plain(port) as channel:
        request = health_pb2.HealthCheckRequest()
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(request, wait_for_ready=True, timeout=SECONDS)


def test_calls_beyond_the_streams_of_a_connection_wait_in_the_client(serve) -> None:
    with plain(serve(limits=Limits(streams=2))) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        watches = [stub.Watch(request, timeout=SECONDS) for _ in range(2)]
        for watch in watches:
            next(watch)

        waiting = stub.Check.future(request, timeout=SECONDS)
        late = stub.Check.future(request, timeout=0.2)
        assert late.code().name == "DEADLINE_EXCEEDED"
        watches[0].cancel()
        assert waiting.code().name == "OK"


def test_bursts_within_the_limits_lose_no_call(serve) -> None:
    port = serve(limits=Limits(streams=300))
    with ExitStack() as stack:
        channels = [stack.enter_context(plain(port)) for _ in range(5)]
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        request = health_pb2.HealthCheckRequest()
        calls = [stub.Check.future(request, timeout=60) for _ in range(400) for stub in stubs]

        assert {call.code().name for call in calls} == {"OK"}


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0])


def ended(connection: socket.socket) -> bytes:
    """What a connection carried until the server closed it."""
    connection.settimeout(SECONDS)
    parts = []
    with connection:
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_the_server_closes_connections_that_are_silent_idle_dead_or_old(serve, files) -> None:
    credentials = server_credentials(files.certificate, files.key)
    short = serve(
        limits=Limits(handshake_seconds=1, idle_seconds=1, connection_seconds=1, stream_seconds=1)
    )
    encrypted = serve(credentials, limits=Limits(handshake_seconds=1))
    asking = serve(limits=Limits(silence_seconds=1))
    with ThreadPoolExecutor() as pool:

        def open_to(port: int, sent: bytes = b""):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(sent)
            return pool.submit(ended, connection)

        silent = [open_to(short), open_to(short, PREFACE), open_to(encrypted)]
        idle = open_to(short, PREFACE + SETTINGS)
        dead = pool.submit(answer_one_ping, asking)
        with plain(short) as channel:
            request = health_pb2.HealthCheckRequest()
            watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=SECONDS)
            with pytest.raises(grpc.RpcError) as end:
                list(watch)

        assert (end.value.code().name, end.value.details()) == ("UNAVAILABLE", "max connection age")
        assert all(connection.result() is not None for connection in silent)
        assert b"connection idle" in idle.result()
        assert b"ping timeout" in dead.result()


def answer_one_ping(port: int) -> bytes:
    """What a connection with an open call carries if its client falls silent after one ping.

    The first comes with the first data, to measure the connection; the next asks for signs of life.
    """
    connection = socket.create_connection(("127.0.0.1", port), SECONDS)
    connection.sendall(PREFACE + SETTINGS + headers("/grpc.health.v1.Health/Watch"))
    received = b""
    while (start := received.find(PING)) < 0 or len(received) < start + 17:
        received += connection.recv(65536)
    payload = received[start + 9 : start + 17]
    connection.sendall(PING[:4] + b"\x01" + PING[5:] + payload)
    return ended(connection)


def headers(path: str) -> bytes:
    """The frames that begin a call with an empty message; a real client would answer pings."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in field)
        for field in fields.items()
    )
    frame = len(block).to_bytes(3) + bytes([1, 4, 0, 0, 0, 1]) + block
    return frame + bytes([0, 0, 5, 0, 1, 0, 0, 0, 1]) + bytes(5)

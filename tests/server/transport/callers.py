"""Callers of a server, and the file that says which of them are let in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.access import Access
from attnpriv_server.domain import Role
from tests.server.transport.certificates import Pair

SECONDS = 20.0  # far beyond what any call here takes
EVERY_ROLE = " ".join(Role)


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

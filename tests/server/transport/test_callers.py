"""Who may call, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server import access as access_module
from attnpriv_server import streams
from attnpriv_server.access import new_token
from attnpriv_server.transport import server_credentials
from tests.server.transport.callers import (
    EVERY_ROLE,
    SECONDS,
    bearer,
    code_of,
    list_models,
    plain,
    secure,
    table,
)
from tests.server.transport.certificates import CLIENTS, new_pair


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

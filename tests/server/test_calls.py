"""Calls without any transport: who is let in, what is counted, and how streams wait and end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from attnpriv_server import calls
from attnpriv_server.access import Access, new_token
from attnpriv_server.calls import Calls, Incoming, StreamCall
from attnpriv_server.domain import (
    Code,
    Credentials,
    Deadline,
    ExplainRequest,
    GetModelRequest,
    ListModelsRequest,
    PredictRequest,
    Readiness,
    ReadinessRequest,
    RefusedError,
    Request,
    Response,
    Role,
    Status,
)
from attnpriv_server.streams import Streams
from attnpriv_server.telemetry import Telemetry

METHOD = "/package.Service/Method"
SECONDS = 30


def incoming(
    role: Role | None = None, token: str | None = None, deadline: Deadline | None = None
) -> Incoming:
    return Incoming(METHOD, role, lambda: Credentials(token), deadline or Deadline())


def counted(telemetry: Telemetry) -> dict[str, float]:
    """Calls by status code."""
    return {
        sample.labels["code"]: sample.value
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == "attnpriv_server_calls_total"
    }


async def ready(request: Request, credentials: Credentials, deadline: Deadline) -> Response:
    deadline.check()
    return Readiness(True)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry([METHOD])


@pytest.fixture
def token(tmp_path) -> str:
    """Of a principal that may predict, in the file of ``known``."""
    secret, digest = new_token()
    table = f'name = "bot"\nroles = ["predict"]\ntokens = [{{ sha256 = "{digest}" }}]\n'
    (tmp_path / "principals.toml").write_text(f"[[principal]]\n{table}")
    return secret


@pytest.fixture
def known(tmp_path, token) -> Access:
    return Access.from_file(tmp_path / "principals.toml")


def refusal_of(run: Callable[[], object]) -> Status:
    with pytest.raises(RefusedError) as caught:
        run()
    return caught.value.status


# One call


@pytest.mark.parametrize(
    ("shown", "role", "code"),
    [
        (False, Role.PREDICT, Code.UNAUTHENTICATED),
        (False, None, Code.UNAUTHENTICATED),
        (True, Role.EXPLAIN, Code.PERMISSION_DENIED),
    ],
)
@pytest.mark.parametrize("method", ["call", "stream"])
def test_who_may_not_ask_is_refused_before_anything_is_read_and_counted(
    known, token, telemetry, shown, role, code, method
) -> None:
    async def run() -> None:
        found = Calls(known, telemetry, ready)
        async with getattr(found, method)(incoming(role, token if shown else None)):
            raise AssertionError("the block, where requests are read, was entered")

    assert refusal_of(lambda: asyncio.run(run())).code is code
    assert counted(telemetry) == {code.value: 1}


def test_credentials_that_cannot_be_read_are_a_counted_refusal(telemetry) -> None:
    def read() -> Credentials:
        raise RefusedError(Code.RESOURCE_EXHAUSTED, "too much of it")

    async def run() -> None:
        async with Calls(Access.anonymous(), telemetry, ready).call(Incoming(METHOD, None, read)):
            raise AssertionError("entered")

    assert refusal_of(lambda: asyncio.run(run())).message == "too much of it"
    assert counted(telemetry) == {"RESOURCE_EXHAUSTED": 1}


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (None, "OK"),
        (RefusedError(Code.NOT_FOUND, "no"), "NOT_FOUND"),
        (asyncio.CancelledError(), "CANCELLED"),
        (ValueError("a secret"), "INTERNAL"),
    ],
)
def test_a_call_is_counted_and_logged_however_it_ends(telemetry, caplog, ending, code) -> None:
    caplog.set_level(logging.INFO, "attnpriv_server")

    async def run() -> None:
        async with Calls(Access.anonymous(), telemetry, ready).call(incoming()):
            if ending is not None:
                raise ending

    if code == "OK":
        asyncio.run(run())
    elif code == "CANCELLED":
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(run())
    else:
        found = refusal_of(lambda: asyncio.run(run()))
        assert found.code == code
        assert "secret" not in found.message
    assert counted(telemetry) == {code: 1}
    lines = [record.fields for record in caplog.records]
    assert "secret" not in str(lines)
    assert {**lines[-1], "seconds": 0} == {"method": METHOD, "code": code, "seconds": 0}
    assert [line["error"] for line in lines[:-1]] == (["ValueError"] if code == "INTERNAL" else [])


def test_a_call_that_outlasts_its_deadline_is_counted_as_late(telemetry) -> None:
    async def run() -> None:
        found = Calls(Access.anonymous(), telemetry, ready)
        async with found.call(incoming(deadline=Deadline(0.01))):
            await asyncio.sleep(0.05)

    asyncio.run(run())
    assert counted(telemetry) == {"DEADLINE_EXCEEDED": 1}


def test_a_defect_in_an_answer_is_logged_once_and_tells_nothing(telemetry, caplog) -> None:
    async def fail(*_: object) -> Response:
        raise ValueError("a secret")

    async def run() -> None:
        async with Calls(Access.anonymous(), telemetry, fail).call(incoming()) as call:
            await call.answer(ReadinessRequest())

    assert refusal_of(lambda: asyncio.run(run())) == Status(Code.INTERNAL, "internal error")
    assert [record.fields["error"] for record in caplog.records] == ["ValueError"]
    assert counted(telemetry) == {"INTERNAL": 1}


def test_nothing_is_answered_once_the_call_is_over(telemetry) -> None:
    async def run() -> None:
        async with Calls(Access.anonymous(), telemetry, ready).call(incoming()) as call:
            assert await call.answer(ReadinessRequest()) == Readiness(True)
        await call.answer(ReadinessRequest())

    assert refusal_of(lambda: asyncio.run(run())).code is Code.CANCELLED


def test_a_call_opened_for_one_role_answers_no_request_of_another(
    make_core, models, known, token
) -> None:
    """An adapter that asks for too little at admission gives nothing away."""
    core = make_core(models, access=known)

    async def codes() -> list[Code]:
        found = []
        async with core.call(incoming(None, token)) as call:
            for request in (
                ExplainRequest("private", "a"),
                GetModelRequest("private"),
                ListModelsRequest(),
            ):
                with pytest.raises(RefusedError) as caught:
                    await call.answer(request)
                found.append(caught.value.status.code)
            assert (await call.answer(PredictRequest("private", ("a",)))).predictions
        return found

    assert asyncio.run(codes()) == [Code.PERMISSION_DENIED] * 3


# Streams


async def endless() -> AsyncIterator[bytes]:
    yield b"1"
    await asyncio.sleep(SECONDS)


def test_a_stream_ends_with_its_callers_admission_without_help_of_a_transport(
    known, token, telemetry, tmp_path
) -> None:
    async def run() -> None:
        found = Calls(known, telemetry, ready)
        async with found.stream(incoming(Role.PREDICT, token)) as call:
            async for _ in call.requests(endless()):
                (tmp_path / "principals.toml").write_text(
                    '[[principal]]\nname = "bot"\nroles = ["models"]\n'
                )

    started = time.monotonic()
    assert refusal_of(lambda: asyncio.run(run())).code is Code.UNAUTHENTICATED
    assert time.monotonic() - started < SECONDS / 2
    assert counted(telemetry) == {"UNAUTHENTICATED": 1}


def test_nothing_watches_once_no_stream_is_open(telemetry) -> None:
    async def run() -> int:
        found = Calls(Access.anonymous(), telemetry, ready)
        for _ in range(3):
            async with found.stream(incoming()), found.stream(incoming()):
                assert len(asyncio.all_tasks()) == 2  # this one, and one for all streams
            await asyncio.sleep(0)  # in which a cancelled task ends
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1


def streamed(answer: Callable) -> tuple[Response | Status, float]:
    """The answer to one request of a stream, and the seconds that it took."""

    async def run() -> Response | Status:
        async with asyncio.timeout(SECONDS):
            streams = Streams(lambda *_: None)
            async with streams.opened(Credentials(), None) as stream:
                call = StreamCall(streams, stream, answer, Credentials(), Deadline())
                return await call.answer_when_free(ReadinessRequest())

    started = time.monotonic()
    return asyncio.run(run()), time.monotonic() - started


@pytest.mark.parametrize("retry_after", [0.0, 0.01, 0.15])
def test_a_stream_that_finds_the_server_full_waits_before_it_asks_again(retry_after) -> None:
    asked = 0

    async def full_twice(*_: object) -> Response:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise RefusedError(Code.RESOURCE_EXHAUSTED, "full", retry_after=retry_after)
        return Readiness(True)

    answer, seconds = streamed(full_twice)

    assert answer == Readiness(True)
    assert asked == 3
    assert seconds >= 2 * max(retry_after, calls.SHORTEST_WAIT)


def test_a_refusal_that_no_waiting_mends_is_the_answer_at_once() -> None:
    """As of a budget that is spent: trying again would spin until the stream's deadline."""
    asked = 0

    async def spent(*_: object) -> Response:
        nonlocal asked
        asked += 1
        raise RefusedError(Code.RESOURCE_EXHAUSTED, "the budget is spent")

    answer, _ = streamed(spent)

    assert answer == Status(Code.RESOURCE_EXHAUSTED, "the budget is spent")
    assert asked == 1

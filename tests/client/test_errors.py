"""What a server fails with, which error a caller sees, and what is tried again."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from attnpriv_client import (
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ServiceError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from attnpriv_client.retries import Attempts

DETAILS = "grpc-status-details-bin"


def retry_info(seconds: float) -> RetryInfo:
    retry = RetryInfo()
    retry.retry_delay.FromMicroseconds(int(seconds * 1e6))
    return retry


def details(code: grpc.StatusCode, message: str, *parts) -> bytes:
    status = Status(code=code.value[0], message=message)
    for part in parts:
        status.details.add().Pack(part)
    return status.SerializeToString()


def failing(code: str, *parts, times: int = 100):
    """Fail so many calls, with details; the calls after them are answered."""
    left = iter(range(times))

    def on_call(context) -> None:
        if next(left, None) is None:
            return
        status = grpc.StatusCode[code]
        context.set_trailing_metadata([(DETAILS, details(status, "no", *parts))])
        context.abort(status, "no")

    return on_call


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("INVALID_ARGUMENT", InvalidRequestError),
        ("UNAUTHENTICATED", UnauthenticatedError),
        ("PERMISSION_DENIED", PermissionDeniedError),
        ("NOT_FOUND", NotFoundError),
        ("DEADLINE_EXCEEDED", DeadlineExceededError),
        ("INTERNAL", InternalError),
        ("RESOURCE_EXHAUSTED", ServiceError),
        ("UNIMPLEMENTED", ServiceError),
        ("UNKNOWN", ServiceError),
    ],
)
def test_each_status_has_its_error_and_is_not_tried_again(serve, echo, ask, code, kind) -> None:
    echo.on_call = failing(code)

    with pytest.raises(ServiceError) as caught:
        ask(serve(echo), "predict", "model", ["text"])

    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message) == (code, "no")
    assert len(echo.requests) == 1


def test_details_name_the_fields_at_fault(serve, echo, ask) -> None:
    fault = BadRequest.FieldViolation(field="texts[1]", description="expected a text")
    echo.on_call = failing("INVALID_ARGUMENT", RetryInfo(), BadRequest(field_violations=[fault]))

    with pytest.raises(InvalidRequestError) as caught:
        ask(serve(echo), "predict", "model", ["text"])

    assert caught.value.violations == (Violation("texts[1]", "expected a text"),)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff",
        details(grpc.StatusCode.NOT_FOUND, "no", retry_info(1)),
        details(grpc.StatusCode.INVALID_ARGUMENT, "another sentence", retry_info(1)),
        details(
            grpc.StatusCode.INVALID_ARGUMENT,
            "no",
            AnyMessage(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff"),
        ),
        Status(
            code=3,
            message="no",
            details=[AnyMessage(type_url="x/google.rpc.BadRequest", value=b"\xff\xff")],
        ).SerializeToString(),
    ],
    ids=["no message", "another code", "another sentence", "unknown type", "unreadable"],
)
def test_details_that_make_no_sense_count_as_none(serve, echo, ask, garbage) -> None:
    def on_call(context) -> None:
        context.set_trailing_metadata([(DETAILS, garbage)])
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    echo.on_call = on_call

    with pytest.raises(InvalidRequestError) as caught:
        ask(serve(echo), "predict", "model", ["text"])

    assert (caught.value.violations, caught.value.retry_after) == ((), None)


@pytest.mark.parametrize(
    ("code", "parts"), [("UNAVAILABLE", ()), ("RESOURCE_EXHAUSTED", (retry_info(0.01),))]
)
def test_what_may_pass_is_tried_again(serve, echo, ask, code, parts) -> None:
    echo.on_call = failing(code, *parts, times=2)

    answers = ask(serve(echo), "predict", "model", ["text"])

    assert answers[0].label == "text"
    assert len(echo.requests) == 3


@pytest.mark.parametrize("attempts", [1, 2])
def test_not_more_often_than_allowed(serve, echo, ask, attempts) -> None:
    echo.on_call = failing("UNAVAILABLE")

    with pytest.raises(UnavailableError):
        ask(serve(echo), "predict", "model", ["text"], attempts=attempts)

    assert len(echo.requests) == attempts


def test_not_where_the_server_asks_to_wait_beyond_the_deadline(serve, echo, ask) -> None:
    echo.on_call = failing("RESOURCE_EXHAUSTED", retry_info(100))

    with pytest.raises(OverloadedError) as caught:
        ask(serve(echo), "predict", "model", ["text"])

    assert caught.value.retry_after == 100
    assert len(echo.requests) == 1


def test_a_call_that_a_stopping_server_cancels_is_tried_again(serve, echo, ask) -> None:
    def cancel_the_first(context) -> None:
        if len(echo.requests) == 1:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")

    echo.on_call = cancel_the_first

    assert ask(serve(echo), "predict", "model", ["text"])[0].label == "text"
    assert len(echo.requests) == 2


def test_a_call_is_not_tried_again_once_its_client_is_closed(serve, echo) -> None:
    begun, over = threading.Event(), threading.Event()

    def wait(context) -> None:
        context.add_callback(over.set)
        begun.set()
        over.wait(60)

    echo.on_call = wait
    client = Client(serve(echo))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(client.predict, "model", ["text"])
        assert begun.wait(60)
        client.close()
        error = asked.exception(60)

    assert isinstance(error, ServiceError)
    assert error.code == "CANCELLED"
    assert len(echo.requests) == 1


def test_one_deadline_holds_for_all_attempts(serve, echo, ask) -> None:
    never = threading.Event()
    left: list[float] = []

    def on_call(context) -> None:
        left.append(context.time_remaining())
        if len(left) < 3:
            failing("UNAVAILABLE", retry_info(0.05))(context)
        context.add_callback(never.set)
        never.wait()

    echo.on_call = on_call

    with pytest.raises(DeadlineExceededError):
        ask(serve(echo), "predict", "model", ["text"], timeout=1.2)

    assert left[0] > left[1] > left[2]


def test_a_server_that_comes_up_late_is_found(serve, echo, ask) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threading.Timer(0.3, serve, (echo,), {"port": port}).start()

    answers = ask(f"localhost:{port}", "predict", "model", ["text"], attempts=100)

    assert answers[0].label == "text"


def test_pauses_grow_at_random_and_begin_when_the_server_says() -> None:
    def pauses(error: ServiceError) -> list[float]:
        attempts = Attempts(timeout=1000.0, number=12, closed=threading.Event())
        return [attempts.pause(error) for _ in range(11)]

    several = [pauses(UnavailableError("UNAVAILABLE", "no")) for _ in range(100)]

    for number in range(11):
        limit = min(0.2 * 2**number, 5)
        column = [each[number] for each in several]
        assert min(column) < limit / 4 < limit * 3 / 4 < max(column) <= limit
    assert all(3 <= p <= 8 for p in pauses(OverloadedError("RESOURCE_EXHAUSTED", "no", (), 3)))

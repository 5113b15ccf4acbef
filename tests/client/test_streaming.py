"""Streams of any length: order, memory, refused texts, and connections that break."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import aclosing

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    Prediction,
    UnauthenticatedError,
    UnavailableError,
)

MANY = [f"text {n}" for n in range(1000)]


def labels(answers) -> list[str]:
    return [each.label if isinstance(each, Prediction) else each.message for each in answers]


def refuse_blank(echo):
    """Refuse the first blank text of each request, as the real server does."""

    def answer(request: pb.PredictStreamRequest) -> pb.PredictStreamResponse:
        for position, text in enumerate(request.request.texts):
            if not text.strip():
                error = Status(code=3, message=f"texts[{position}]: blank")
                fault = BadRequest.FieldViolation(field=f"texts[{position}]", description="blank")
                error.details.add().Pack(BadRequest(field_violations=[fault]))
                return pb.PredictStreamResponse(number=request.number, error=error)
        return echo.answer(request)

    return lambda requests, context: map(answer, requests)


def test_answers_leave_in_the_order_of_the_texts_whatever_order_they_come_in(
    serve, echo, ask
) -> None:
    def by_fours_backwards(requests, context):
        for four in iter(lambda: list(itertools.islice(requests, 4)), []):
            yield from map(echo.answer, reversed(four))

    echo.stream = by_fours_backwards

    assert labels(ask(serve(echo), "predict_stream", "model", MANY[:640], "7")) == MANY[:640]
    assert all(each.request.version == "7" for each in echo.requests)
    assert len(echo.requests) < 640 / 4


def test_the_call_ends_well_when_all_is_answered(serve, echo, ask) -> None:
    ended = threading.Event()

    def until_the_end(requests, context):
        yield from map(echo.answer, requests)
        ended.set()

    echo.stream = until_the_end

    ask(serve(echo), "predict_stream", "model", MANY)

    assert ended.wait(10)


def test_nothing_at_all(serve, echo, ask) -> None:
    assert ask(serve(echo), "predict_stream", "model", []) == []


def test_long_texts_travel_in_smaller_requests(serve, echo, ask) -> None:
    texts = [letter * 400_000 for letter in "abcdef"]

    assert labels(ask(serve(echo), "predict_stream", "model", texts)) == texts
    assert max(each.ByteSize() for each in echo.requests) < 1_100_000


def test_an_endless_source_is_read_one_window_ahead(serve, echo) -> None:
    read = itertools.count()
    endless = (f"text {number}" for number in read)

    with Client(serve(echo)) as client:
        answers = client.predict_stream("model", endless)
        found = labels(itertools.islice(answers, 2000))
        answers.close()

    assert found == [f"text {number}" for number in range(2000)]
    assert next(read) <= 2000 + 16 * 32 + 32 + 1


def test_texts_that_come_asynchronously(serve, echo) -> None:
    async def texts():
        for text in MANY:
            await asyncio.sleep(0)
            yield text

    async def first_half() -> list[str]:
        async with (
            AsyncClient(serve(echo)) as client,
            aclosing(client.predict_stream("model", texts())) as answers,
        ):
            return labels([await anext(answers) for _ in range(500)])

    assert asyncio.run(first_half()) == MANY[:500]


def test_a_refused_text_has_its_error_and_the_others_go_on(serve, echo, ask) -> None:
    echo.stream = refuse_blank(echo)
    texts = ["a", "", "b", " ", *MANY[:40], ""]

    found = ask(serve(echo), "predict_stream", "model", texts)

    assert labels(found) == ["a", "blank", "b", "blank", *MANY[:40], "blank"]
    assert [type(found[position]) for position in (1, 3, 44)] == [InvalidRequestError] * 3


def test_a_stream_that_breaks_goes_on_where_it_was(serve, echo, ask) -> None:
    calls = itertools.count()

    def breaking(requests, context):
        yield from map(echo.answer, itertools.islice(requests, 5))
        if next(calls) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield from map(echo.answer, requests)

    echo.stream = breaking

    assert labels(ask(serve(echo), "predict_stream", "model", MANY)) == MANY
    assert next(calls) == 4


def test_a_stream_that_breaks_leaves_no_task_behind(serve, echo) -> None:
    calls = itertools.count()

    def break_once(requests, context):
        asked = [next(requests), next(requests)]
        if next(calls) == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "broke")
        yield from map(echo.answer, itertools.chain(asked, requests))

    echo.stream = break_once

    async def tasks_left() -> set[asyncio.Task]:
        async with AsyncClient(target) as client:
            before = asyncio.all_tasks()
            assert [each async for each in client.predict_stream("model", MANY[:64])]
            left = asyncio.all_tasks() - before
            if left:
                await asyncio.wait(left, timeout=2)
            return {task for task in left if not task.done()}

    target = serve(echo)
    assert asyncio.run(tasks_left()) == set()


def test_a_model_that_is_not_ready_is_asked_again(serve, echo, ask) -> None:
    seen = set()

    def once_not_ready(requests, context):
        for request in requests:
            if request.number in seen or request.number % 3:
                yield echo.answer(request)
            else:
                seen.add(request.number)
                error = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="loading")
                yield pb.PredictStreamResponse(number=request.number, error=error)

    echo.stream = once_not_ready

    assert labels(ask(serve(echo), "predict_stream", "model", MANY[:100])) == MANY[:100]


def test_a_server_that_hangs_up_each_time_is_unavailable(serve, echo, ask) -> None:
    calls = itertools.count()
    echo.stream = lambda requests, context: iter([][next(calls) :])
    echo.on_call = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    with pytest.raises(UnavailableError, match="the server ended the stream|going away"):
        ask(serve(echo), "predict_stream", "model", MANY, attempts=2)
    assert next(calls) <= 2


def test_a_server_that_refuses_the_stream_at_once_says_why(serve, echo, ask) -> None:
    def refuse(context) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

    echo.stream = lambda requests, context: refuse(context)
    echo.on_call = refuse
    target = serve(echo)

    for _ in range(20):
        with pytest.raises(UnauthenticatedError, match=r"who are you\?"):
            ask(target, "predict_stream", "model", MANY)


def test_what_is_wrong_with_all_texts_ends_the_stream(serve, echo, ask) -> None:
    unknown = Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="unknown model")
    echo.stream = lambda requests, context: (
        pb.PredictStreamResponse(number=each.number, error=unknown) for each in requests
    )

    with pytest.raises(NotFoundError, match="unknown model"):
        ask(serve(echo), "predict_stream", "model", MANY)


@pytest.mark.parametrize(
    "answer",
    [
        pb.PredictStreamResponse(number=99, response=pb.PredictResponse()),
        pb.PredictStreamResponse(number=0, response=pb.PredictResponse()),
        pb.PredictStreamResponse(number=0),
    ],
)
def test_answers_that_fit_nothing_are_a_defect_of_the_server(serve, echo, ask, answer) -> None:
    echo.stream = lambda requests, context: (answer for _ in requests)

    with pytest.raises(InternalError):
        ask(serve(echo), "predict_stream", "model", ["text"])


def test_no_answer_within_the_timeout(serve, echo, ask) -> None:
    cancelled = threading.Event()

    def silent(requests, context):
        context.add_callback(cancelled.set)
        cancelled.wait()
        return iter(())

    echo.stream = silent

    with pytest.raises(DeadlineExceededError):
        ask(serve(echo), "predict_stream", "model", MANY, timeout=0.2)
    assert cancelled.wait(10)


def test_an_error_of_the_source_is_raised_as_it_is(serve, echo, ask) -> None:
    def texts():
        yield from MANY
        raise UnavailableError("UNAVAILABLE", "of another server")

    with pytest.raises(UnavailableError, match="of another server"):
        ask(serve(echo), "predict_stream", "model", texts())


def test_a_text_that_cannot_be_sent_has_its_error_and_the_others_go_on(serve, echo, ask) -> None:
    unread = InvalidRequestError("INVALID_ARGUMENT", "not read")
    texts = ["a", "\udcff", *MANY[:40], "x" * ((1 << 20) + 1), unread, "b"]

    found = ask(serve(echo), "predict_stream", "model", texts)

    unsendable = (
        "expected valid Unicode, got a lone surrogate at 0",
        "expected texts of at most 1048576 bytes, got one of 1048577",
    )
    assert labels(found) == ["a", unsendable[0], *MANY[:40], unsendable[1], "not read", "b"]
    assert [type(found[position]) for position in (1, 42, 43)] == [InvalidRequestError] * 3


def test_nothing_is_asked_where_no_text_can_be_sent(ask) -> None:
    found = ask("127.0.0.1:1", "predict_stream", "model", ["\udcff"] * 2000)

    assert labels(found) == ["expected valid Unicode, got a lone surrogate at 0"] * 2000


def test_one_string_is_no_stream_of_texts(ask) -> None:
    with pytest.raises(InputError, match="got a single string"):
        ask("127.0.0.1:1", "predict_stream", "model", "one string")

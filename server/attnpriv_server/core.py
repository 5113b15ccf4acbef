"""The transport-free core: admits callers, checks requests, applies the policy, answers.

Adapters open a call by ``Core.call`` or ``Core.stream``, and what they get is the only way to an
answer, so none can leave a check out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, assert_never

from attnpriv.errors import InputError
from attnpriv.sensitive import Detector, PresidioDetector
from attnpriv_server.access import Access
from attnpriv_server.answers import Answers
from attnpriv_server.asking import Asked
from attnpriv_server.calls import Call, Calls, Incoming, StreamCall
from attnpriv_server.checks import check_explain, check_predict, check_summarize
from attnpriv_server.domain import (
    Code,
    Credentials,
    Deadline,
    ExplainRequest,
    GetModelRequest,
    ListModelsRequest,
    Model,
    Models,
    PredictRequest,
    Principal,
    Readiness,
    ReadinessRequest,
    RefusedError,
    Request,
    Response,
    SummarizeRequest,
)
from attnpriv_server.limits import Limits
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import Loaded, UnknownModelError, Version
from attnpriv_server.policy import Policies
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import Telemetry

if TYPE_CHECKING:
    from attnpriv_server.budget.charging import Budget


class Core:
    """Answers requests on the models of a repository. Use it from one event loop.

    Args:
        repository: the models.
        access: who may ask.
        policies: gives what answers may reveal now, and to whom.
        limits: how large a request may be.
        batching: how predictions are put together.
        telemetry: told of calls and of what the lanes do.
        workers: how many batches of predictions are computed at once.
        detector: finds what is hidden; by default the one without a file of rules.
        budget: pays for drawn answers; closed with the core. None where no policy draws any.
    """

    def __init__(
        self,
        repository: Repository,
        access: Access,
        policies: Callable[[], Policies],
        limits: Limits,
        batching: Batching,
        telemetry: Telemetry,
        workers: int = 1,
        detector: Detector | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.limits = limits
        self.repository = repository
        self.telemetry = telemetry
        self._access = access
        self._calls = Calls(access, telemetry, self._answer)
        self._policies = policies
        self._answers = Answers(
            PresidioDetector() if detector is None else detector,
            budget,
            batching,
            limits.explanations,
            telemetry,
            workers,
        )
        self._loader = ThreadPoolExecutor(1, "load")  # the repository loads one at a time
        self._loads: dict[Version, asyncio.Future[Loaded]] = {}  # that wait or are under way

    def close(self) -> None:
        """Finish the work that waits, and end the threads."""
        self._answers.close()
        self._loader.shutdown(cancel_futures=True)

    def call(self, incoming: Incoming) -> AbstractAsyncContextManager[Call]:
        """Let a caller in, and answer its request inside the block.

        Nothing of the request has to be read before the block is entered: whoever may not ask is
        refused without that. Whatever ends the block is counted and logged, by method, status and
        time alone.

        Raises:
            RefusedError: UNAUTHENTICATED or PERMISSION_DENIED when it is entered; then whatever
                the block lets through. What is no refusal is logged as a defect and becomes
                INTERNAL.
        """
        return self._calls.call(incoming)

    def stream(self, incoming: Incoming) -> AbstractAsyncContextManager[StreamCall]:
        """As ``call``, for as long as the caller may ask and for any number of requests.

        Raises:
            RefusedError: as for ``call``; also once the caller may not ask any more, and
                UNAVAILABLE where the server stopped before the client had sent all its requests.
        """
        return self._calls.stream(incoming)

    def stop_streams(self) -> None:
        """Read no more requests of streams; each ends once those that were read are answered."""
        self._calls.streams.stop()

    async def _answer(
        self, request: Request, credentials: Credentials, deadline: Deadline
    ) -> Response:
        deadline.check()
        # Not only when the call was admitted: streams outlast that, and may ask for other things.
        principal = self._access.authenticate(credentials)
        principal.check(request.role)
        turn = principal.name if self._access.required else credentials.connection
        match request:
            case PredictRequest():
                check_predict(request, self.limits)
                asked = await self._asked(request, principal, turn, deadline)
                return await self._answers.predict(asked, request)
            case ExplainRequest():
                check_explain(request, self.limits)
                asked = await self._asked(request, principal, turn, deadline)
                return await self._answers.explain(asked, request)
            case SummarizeRequest():
                check_summarize(request, self.limits)
                asked = await self._asked(request, principal, turn, deadline)
                return await self._answers.summarize(asked, request)
            case ListModelsRequest():
                found = self.repository.models()
                return Models(tuple(_model(versions[-1], versions) for versions in found.values()))
            case GetModelRequest():
                version = self._find(request.name, request.version)
                return _model(version, self.repository.models()[version.name])
            case ReadinessRequest():
                return Readiness(self._is_ready(request))
            case _:
                assert_never(request)

    async def _asked(
        self,
        request: PredictRequest | ExplainRequest | SummarizeRequest,
        principal: Principal,
        turn: Hashable,
        deadline: Deadline,
    ) -> Asked:
        role = self._policies().of(principal.name)
        loaded = await self._loaded(request.model, request.version, deadline)
        return Asked(request, principal, loaded, role, turn, deadline)

    def _find(self, name: str, version: str | None) -> Version:
        try:
            return self.repository.find(name, version)
        except UnknownModelError:
            raise RefusedError(
                Code.NOT_FOUND, "unknown model or version; ListModels names those served"
            ) from None

    async def _loaded(self, name: str, version: str | None, deadline: Deadline) -> Loaded:
        """The model, loaded first if it is not in memory; others are answered meanwhile."""
        found = self._find(name, version)
        loaded = self.repository.loaded(found)
        if loaded is not None:
            return loaded
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await asyncio.shield(self._load(found))
        except TimeoutError:
            deadline.check()
            raise
        except InputError:
            raise RefusedError(Code.UNAVAILABLE, "the model cannot be loaded now") from None

    def _load(self, version: Version) -> asyncio.Future[Loaded]:
        """A load that all who wait for the version share, so that callers cannot pile up loads."""
        loading = self._loads.get(version)
        if loading is None:
            loop = asyncio.get_running_loop()
            loading = loop.run_in_executor(self._loader, self.repository.load, version)
            loading.add_done_callback(lambda _: self._loads.pop(version))
            self._loads[version] = loading
        return loading

    def _is_ready(self, request: ReadinessRequest) -> bool:
        if request.model is not None:
            self._find(request.model, request.version)  # what is listed answers, loaded or not
        return self.repository.ready()


def _model(version: Version, versions: Sequence[Version]) -> Model:
    """The card, under the name that the model is served by: its folder may have been renamed."""
    card = version.card.named(version.name)
    numbers = tuple(each.version for each in versions)
    return Model(card, version.version, numbers, version.pixels)

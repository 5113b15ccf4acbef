"""Requests that wait for a model to be loaded."""

from __future__ import annotations

import asyncio
import threading

from attnpriv_server.access import Access
from attnpriv_server.core import Core
from attnpriv_server.domain import PredictRequest
from attnpriv_server.limits import Limits
from attnpriv_server.models.repository import Repository
from attnpriv_server.models.versions import Loaded, Version
from attnpriv_server.policy import Policies
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import Telemetry
from tests.server.asking import answer_of
from tests.server.models.folders import NEVER

CALLERS = 20


def test_callers_that_wait_for_one_version_share_its_load(models, put) -> None:
    put("mail/1")
    put("mail/2")
    begun, go, loads = threading.Event(), threading.Event(), []

    class Slow(Repository):
        def load(self, version: Version) -> Loaded:
            loads.append(version.version)
            begun.set()
            assert go.wait(60)
            return super().load(version)

    async def ask_all(core: Core) -> list[str]:
        request = PredictRequest("mail", ("a",), "1")
        asking = [asyncio.create_task(answer_of(core, request)) for _ in range(CALLERS)]
        left = asyncio.create_task(answer_of(core, request))
        await asyncio.to_thread(begun.wait, 60)
        left.cancel()  # takes the load from nobody
        await asyncio.sleep(0.05)
        go.set()
        return [answer.version for answer in await asyncio.gather(*asking)]

    with Slow(models, "float32", refresh_seconds=NEVER) as repository:
        core = Core(repository, Access.anonymous(), Policies, Limits(), Batching(), Telemetry())
        try:
            assert asyncio.run(ask_all(core)) == ["1"] * CALLERS
        finally:
            go.set()
            core.close()
    assert loads == ["1"]

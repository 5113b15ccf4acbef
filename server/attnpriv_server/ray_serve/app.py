"""The application, as ``attnpriv_server.ray_serve.app:app`` in a configuration of Ray Serve."""

# No annotations as strings here: Ray reads that of ``app`` to know what its arguments are.
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from attnpriv.errors import InputError
from attnpriv_server.assembly import Settings
from attnpriv_server.domain import Precision
from attnpriv_server.queueing import Batching
from attnpriv_server.ray_serve.front import Front
from attnpriv_server.ray_serve.replica import Replica

POSTGRESQL = "postgresql://"
MOST_CALLS = 1000  # of a replica at once; its core refuses long before that, and says when to ask
# Ray would log each call with the request id that its caller chose.
QUIET = {"enable_access_log": False}
_DIGEST = re.compile("[0-9a-fA-F]{64}")


class Arguments(BaseModel):
    """The arguments of the application; those of ``attnpriv-server`` by the same names.

    Attributes:
        front: SHA-256 of the secret of the proxy in front, as ``attnpriv-server token`` makes both.
        insecure: let anyone call who reaches a proxy, in plain text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Path
    policy: Path | None = None
    principals: Path | None = None
    budget: str | None = None
    detection: Path | None = None
    limits: Path | None = None
    precision: Precision = "auto"
    threads: int = Field(1, ge=1)
    token_budget: int = Field(Batching.token_budget, ge=1)
    queue_rows: int = Field(Batching.capacity, ge=1)
    memory_budget: int | None = Field(None, ge=1)
    front: str | None = None
    insecure: bool = False

    def settings(self) -> Settings:
        """What a replica's core is made of.

        Raises:
            InputError: replicas cannot share the budget.
        """
        if self.budget is not None and not self.budget.startswith(POSTGRESQL):
            raise InputError(
                "expected budget postgresql://USER@HOST/NAME: replicas on several machines do not "
                "share a file, and would spend it several times"
            )
        return Settings(
            self.models,
            self.policy,
            self.principals,
            self.budget,
            self.detection,
            self.limits,
            self.precision,
            self.threads,
            self.memory_budget,
            Batching(token_budget=self.token_budget, capacity=self.queue_rows),
        )

    def checked_front(self) -> Front:
        """Who may call.

        Raises:
            InputError: anyone could, or it is no digest.
        """
        if not self.insecure and (self.front is None or self.principals is None):
            raise InputError(
                "refusing to serve without front and principals: proxies of Ray Serve listen on "
                "all addresses in plain text; give insecure: true to accept that strangers may "
                "read texts and ask for answers"
            )
        if self.front is not None and not _DIGEST.fullmatch(self.front):
            raise InputError("expected front to be 64 hexadecimal digits: a digest, not a secret")
        return Front(self.front)


def app(arguments: Arguments) -> serve.Application:
    """The application.

    Raises:
        InputError: the arguments do not go together.
    """
    front, settings = arguments.checked_front(), arguments.settings()
    deployed = serve.deployment(
        name="attnpriv", max_ongoing_requests=MOST_CALLS, logging_config=QUIET
    )(Replica)
    return deployed.bind(settings, front)

"""A request with all that decides what its answer may hold and what it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any, NoReturn
from uuid import uuid4

from attnpriv.config import Kind
from attnpriv.errors import InputError
from attnpriv.release import Cost
from attnpriv_server.budget.accounts import (
    Account,
    Allowance,
    Period,
    Relation,
    Unit,
    limit_of,
)
from attnpriv_server.budget.requests import Charge
from attnpriv_server.domain import (
    Code,
    Deadline,
    ExplainRequest,
    PredictRequest,
    Principal,
    RefusedError,
    SummarizeRequest,
    Violation,
)
from attnpriv_server.models.versions import Loaded
from attnpriv_server.policy import Role


@dataclass(frozen=True)
class Asked:
    """A request on a model that is loaded.

    Attributes:
        request: what is asked.
        principal: who asks.
        loaded: the model.
        role: what the policy answers to the principal.
        turn: whose turn it takes in queues.
        deadline: when the answer is of no use any more.
    """

    request: PredictRequest | ExplainRequest | SummarizeRequest
    principal: Principal
    loaded: Loaded
    role: Role
    turn: Hashable
    deadline: Deadline

    @property
    def restricted(self) -> bool:
        """Whether the model may answer with nothing but labels."""
        return self.role.restrict_non_private_models and not self.loaded.run.card.private

    def charge(self, cost: Cost, detector: str) -> Charge:
        """What the answer is charged.

        Raises:
            RefusedError: the request's id is too short or too long.
        """
        budget = self.role.budget
        assert budget is not None  # a role that draws has one
        period = None if budget.seconds is None else Period(budget.seconds)
        allowance = Allowance(limit_of(budget.epsilon), Unit.EPSILON, period)
        account = Account(self.principal.name, self.request.model, self._relation)
        given = self.request.request_id
        request_id = str(uuid4()) if given is None else given
        content = self._digest(detector)
        try:
            return Charge(account, allowance, cost.micro_epsilon, request_id, content)
        except InputError as error:
            refuse_input("request_id", str(error))

    @property
    def _relation(self) -> Relation:
        return Relation.RECORD if isinstance(self.request, SummarizeRequest) else Relation.SPAN

    def _digest(self, detector: str) -> bytes:
        """Of all that the answer depends on besides chance."""
        asked = {key: value for key, value in asdict(self.request).items() if key != "request_id"}
        # An image counts by its bytes: another file with the same pixels is another request.
        rules = self.role.of_model(self.request.model).model_dump(mode="json")
        kind = type(self.request).__name__
        content = [kind, asked, rules, self.loaded.version.version, detector]
        return hashlib.sha256(
            json.dumps(content, sort_keys=True, default=bytes.hex).encode()
        ).digest()


@dataclass(frozen=True)
class Records:
    """The texts or images that a request is about.

    Attributes:
        field: of the request that has them: ``texts``, ``text``, ``images`` or ``image``.
        contents: texts; files of images, or what was decoded of them.
        known: for each what the client knows to be personal data in it; or nothing.
    """

    field: str
    contents: tuple[Any, ...]
    known: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, request: PredictRequest | ExplainRequest) -> Records:
        """Those of a request, as they were sent."""
        if isinstance(request, ExplainRequest):
            if request.image is None:
                return cls("text", (request.text,), (request.sensitive,))
            return cls("image", (request.image.content,), (request.image.sensitive,))
        if request.images:
            contents, known = zip(*((e.content, e.sensitive) for e in request.images), strict=True)
            return cls("images", contents, known)
        return cls("texts", request.texts, request.sensitive)

    @property
    def kind(self) -> Kind:
        """What they are."""
        return "image" if self.field in ("image", "images") else "text"


def refuse_input(field: str, description: str) -> NoReturn:
    """Refuse a request for what a field of it holds; the description quotes nothing."""
    raise RefusedError(
        Code.INVALID_ARGUMENT, f"{field}: {description}", (Violation(field, description),)
    )


def record_path(field: str, index: int) -> str:
    """The path of a text or an image in its request, such as ``texts[3]``."""
    return field if field in ("text", "image") else f"{field}[{index}]"

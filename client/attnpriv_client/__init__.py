"""A small typed client of an attnpriv server; imports neither torch nor numpy.

>>> from attnpriv_client import Client
>>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
...     client.predict("tickets", ["My parcel has not arrived."])[0].label
'delivery'
"""

import os
import sys
from pathlib import Path

if [Path(program).stem for program in sys.argv[:1]] == ["attnpriv-client"]:
    # The command reports errors in one line of its own, so gRPC need not log them as well. gRPC
    # reads this when it is first imported, below. Other programs decide for themselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from attnpriv_client.async_client import AsyncClient
from attnpriv_client.client import Client
from attnpriv_client.connection import Tls
from attnpriv_client.domain import (
    Explanation,
    GroupSummary,
    Image,
    LabelSummary,
    ModelCard,
    ModelSummary,
    NoisedNumber,
    Prediction,
    Redaction,
    SensitiveBox,
    SensitiveSpan,
    Summary,
    TokenExplanation,
)
from attnpriv_client.errors import (
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

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineExceededError",
    "Explanation",
    "GroupSummary",
    "Image",
    "InternalError",
    "InvalidRequestError",
    "LabelSummary",
    "ModelCard",
    "ModelSummary",
    "NoisedNumber",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "Prediction",
    "Redaction",
    "SensitiveBox",
    "SensitiveSpan",
    "ServiceError",
    "Summary",
    "Tls",
    "TokenExplanation",
    "UnauthenticatedError",
    "UnavailableError",
    "Violation",
]

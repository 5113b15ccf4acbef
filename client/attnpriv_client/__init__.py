"""A small typed client of an attnpriv server; imports neither torch nor numpy.

>>> from attnpriv_client import Client
>>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
...     client.predict("tickets", ["My parcel has not arrived."])[0].label
'delivery'
"""

from attnpriv_client.client import AsyncClient, Client, ServiceError
from attnpriv_client.domain import (
    Explanation,
    ModelCard,
    ModelSummary,
    Prediction,
    Redaction,
    TokenExplanation,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Explanation",
    "ModelCard",
    "ModelSummary",
    "Prediction",
    "Redaction",
    "ServiceError",
    "TokenExplanation",
]

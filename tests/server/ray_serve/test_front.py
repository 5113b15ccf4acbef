"""Which names of certificates are believed."""

from __future__ import annotations

import hashlib

import pytest

from attnpriv_server.domain import RefusedError
from attnpriv_server.ray_serve.front import Front, certificate_names

SECRET = "a secret"
FRONT = Front(hashlib.sha256(SECRET.encode()).hexdigest())


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("", ()),
        ('Subject="CN=reports,O=Example"', ("reports",)),
        ('Subject="";DNS=reports.example', ("reports.example",)),
        ('Hash=0f;Subject="CN=a";URI=spiffe://b;DNS=a;DNS=c', ("a", "spiffe://b", "c")),
        (r'Subject="CN=one\\, two\\;DNS=admin"', ("one, two;DNS=admin",)),
    ],
)
def test_names_of_one_certificate(header: str, names: tuple[str, ...]) -> None:
    assert certificate_names(header) == names


@pytest.mark.parametrize(
    "header",
    ['DNS=admin,Subject="CN=reports"', 'Subject="CN=reports', 'Subject="reports"'],
    ids=["two certificates", "an open quote", "no name"],
)
def test_other_headers_let_nobody_in(header: str) -> None:
    with pytest.raises(RefusedError, match="names of one client certificate"):
        FRONT.names([("x-attnpriv-front", SECRET), ("x-forwarded-client-cert", header)])


@pytest.mark.parametrize("shown", [[], [("x-attnpriv-front", "another")]])
def test_only_the_front_may_call(shown: list[tuple[str, str]]) -> None:
    with pytest.raises(RefusedError, match="through the front"):
        FRONT.names([*shown, ("x-forwarded-client-cert", "DNS=admin")])


def test_without_a_front_no_name_is_believed() -> None:
    assert Front().names([("x-forwarded-client-cert", "DNS=admin")]) == ()

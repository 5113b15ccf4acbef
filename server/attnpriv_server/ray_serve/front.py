"""The proxy in front of Ray Serve's own, and what it may say of a caller."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import shlex

from cryptography import x509

from attnpriv_server.domain import Code, RefusedError

SECRET = "x-attnpriv-front"
CERTIFICATE = "x-forwarded-client-cert"
ALTERNATIVE = ("DNS", "URI")
# In the trailers of a refusal, so that the front can tell it from what Ray says.
OURS = ("x-attnpriv-refusal", "1")

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Front:
    """The only one that may call, where a digest is given.

    Ray Serve's proxy listens on every address of its machine, in plain text, and knows no
    certificates. So the front has a secret, which it puts into every request, and whoever does not
    have it is refused.

    Claim: with a digest, a name of a certificate is believed only beside the front's secret.
    Conditions: the front removes both headers from what it is sent, sets its own, and speaks with
    Ray Serve where nobody listens. Not covered: names that would read otherwise as part of that
    header, such as ones with a semicolon, if an authority signs them.

    Attributes:
        sha256: of the front's secret, in hexadecimal; None lets anyone call and believes no names.
    """

    sha256: str | None = None

    def names(self, metadata: Metadata) -> tuple[str, ...]:
        """The names of the caller's certificate: its common name and its alternative ones.

        Raises:
            RefusedError: UNAUTHENTICATED, the call does not come from the front, or the header has
                not what one proxy writes of one certificate.
        """
        if self.sha256 is None:
            return ()
        shown = dict(metadata)
        secret = shown.get(SECRET, "")
        if not isinstance(secret, str) or _digest(secret) != self.sha256.lower():
            raise RefusedError(Code.UNAUTHENTICATED, "this needs to come through the front")
        try:
            return certificate_names(str(shown.get(CERTIFICATE, "")))
        except ValueError:
            raise RefusedError(
                Code.UNAUTHENTICATED, "expected the names of one client certificate"
            ) from None


def certificate_names(header: str) -> tuple[str, ...]:
    """The names in a header as Envoy writes it (``x-forwarded-client-cert``), for one certificate.

    Raises:
        ValueError: it is of several certificates, as where proxies append, or not well-formed.
    """
    if len(_split(header, ",")) > 1:
        raise ValueError("several certificates")
    names: dict[str, None] = {}
    for part in _split(header, ";"):
        key, _, value = part.partition("=")
        if key == "Subject":
            names |= dict.fromkeys(_common_names(value))
        elif key in ALTERNATIVE and value:
            names[value] = None
    return tuple(names)


def _common_names(subject: str) -> list[str]:
    attributes = x509.Name.from_rfc4514_string(subject)
    found = attributes.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return [str(each.value) for each in found]


def _split(text: str, separator: str) -> list[str]:
    """What stands between separators that no quotes surround; without the quotes."""
    lexer = shlex(text, posix=True)
    lexer.whitespace, lexer.quotes, lexer.commenters = separator, '"', ""
    lexer.whitespace_split = True
    return list(lexer)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()

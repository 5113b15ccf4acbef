"""A request that is paid for: what is stored of it, and what only its sender can read again.

The store must be able to tell a repeat from a new request, and to give a repeat its answer. It must
not tell whoever reads it what was asked or answered. So all that is stored is keyed by the request
id, which the caller chose and the store does not know.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from attnpriv.errors import InputError
from attnpriv_server.budget.accounts import Account, Allowance, check_cost

SHORTEST_ID, LONGEST_ID = 16, 128
DIGEST_BYTES = 32
NONCE_BYTES = 12
LARGEST_ANSWER = 4 * 1024 * 1024


@dataclass(frozen=True)
class Charge:
    """A request and its price.

    Claim: who reads the store learns from a request's row neither its id, nor its content, nor its
    answer, and cannot test guesses of them. Condition: the request id cannot be guessed, as a
    random UUID cannot. Not covered: account, cost, time and the size of the answer, which are
    stored as they are; and a reader who learns the id, for instance from its caller.

    Attributes:
        account: whose budget pays.
        allowance: what the account may spend, by the policy in force.
        cost: the price, in the allowance's unit.
        request_id: the caller's name for the request; one principal's ids are apart from another's.
        content: SHA-256 of all that the answer depends on besides chance: the request, the version
            of the model, the policy. Equal digests must mean that one answer serves for both.

    Raises:
        InputError: the cost, the id or the digest is out of range. The id is not quoted.
    """

    account: Account
    allowance: Allowance
    cost: int
    request_id: str = field(repr=False)
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_cost(self.cost)
        if not SHORTEST_ID <= len(self.request_id) <= LONGEST_ID:
            raise InputError(
                f"expected a request id of {SHORTEST_ID} to {LONGEST_ID} characters, such as a "
                f"random UUID, got {len(self.request_id)} characters"
            )
        if len(self.content) != DIGEST_BYTES:
            raise InputError(
                f"expected a content digest of {DIGEST_BYTES} bytes, got {len(self.content)}"
            )

    @cached_property
    def key(self) -> bytes:
        """What the request is found by."""
        return self._derived("request")

    @cached_property
    def tag(self) -> bytes:
        """What the request is compared by: its content, its account and its price.

        The price belongs there: the same noise at two scales would give away what it hides.
        """
        account = self.account
        paid = (account.model, account.relation, self.allowance.unit, str(self.cost))
        return self._derived("content", self.content, *(part.encode() for part in paid))

    def seal(self, answer: bytes) -> bytes:
        """Encrypt the answer for the store.

        Raises:
            InputError: the answer is too large.
        """
        if len(answer) > LARGEST_ANSWER:
            raise InputError(
                f"expected an answer of at most {LARGEST_ANSWER} bytes, got {len(answer)}"
            )
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, answer, self.tag)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt an answer from the store.

        Raises:
            ValueError: it was not sealed by an equal charge.
        """
        try:
            return self._cipher().decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self.tag)
        except InvalidTag:
            raise ValueError("the stored answer is damaged") from None

    def _cipher(self) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(self._derived("answer"))

    @cached_property
    def _secret(self) -> bytes:
        return hashlib.sha256(self.request_id.encode("utf-8", "surrogatepass")).digest()

    def _derived(self, purpose: str, *parts: bytes) -> bytes:
        """HMAC-SHA-256 under the id; each part with its length, so that none runs into another."""
        named = (purpose.encode(), self.account.principal.encode(), *parts)
        message = b"".join(len(part).to_bytes(8, "big") + part for part in named)
        return hmac.digest(self._secret, message, "sha256")


@dataclass(frozen=True)
class Receipt:
    """Proof that a charge is durable.

    Attributes:
        repeated: an equal request was charged before, so this one cost nothing.
        answer: what was answered then; None where no answer was kept yet.
    """

    repeated: bool
    answer: bytes | None = field(default=None, repr=False)

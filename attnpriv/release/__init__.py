"""Answers that are drawn at random: what they reveal of a hidden input has a bound and a price.

Two inputs are related if an answer must not tell them apart. Under the *span relation* they have
the same redacted text, with other values in place of the hidden tokens. What is computed from the
redacted text is then the same for both, and costs nothing. The mechanisms here start from it::

    from the redacted text          from the whole text, secret
    prior ──► RandomisedResponse ◄── the best answer            names it as often as ε allows
    scores ─► BoundedDraw        ◄── the scores                 a draw that follows them

Each mechanism is made from the redacted part alone. So its cost is known, and can be charged,
before the secret part is looked at.

Claim: each draw is pure ε-differential privacy under the span relation, in every layer and with any
attention, ε being exactly the cost: probabilities are whole numbers, compared without rounding.
Condition: the redacted part is the same to the last bit for two related inputs, and the stream's
key is secret and makes this draw only.
Not covered: what the detector of hidden tokens misses, how many there are and where they stand, how
long a draw takes. Draws compose: their costs add up.

Figures over many records are noised instead: ``attnpriv.release.sums``.
"""

from attnpriv.release.bounded import BoundedDraw
from attnpriv.release.cost import FREE, Cost
from attnpriv.release.response import RandomisedResponse

__all__ = ["FREE", "BoundedDraw", "Cost", "RandomisedResponse"]

"""How many edits of a text cannot change what most of its randomly shortened copies are answered.

For any model: each token of the text is deleted with the same chance, over and over, and the answer
is the class that more than half of the copies get. An edit of a token matters only to copies that
keep it, so that few edits cannot move a clear majority.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.stats import beta

from attnpriv import guarantees
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.classifier import pooled_features
from attnpriv.runs.folder import Run
from attnpriv.work_folder import WorkFolder

ALPHA = 0.001  # the chance, for each text, that what is said of it is wrong
SELECTION = 100  # copies that choose the class, apart from those that count its votes
WHOLE = 1_000_000  # tokens: nothing is cut before the deletion
AT_ONCE = 128  # copies in one forward pass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Deletion:
    """How copies of a text are made and counted.

    Attributes:
        rate: the chance of each token to be deleted, between 0 and 1.
        draws: copies whose answers are counted.
        seed: of the deletions, with the text itself.

    Raises:
        InputError: a value is out of range.
    """

    rate: float
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InputError(f"expected a deletion rate between 0 and 1, got {self.rate:g}")
        if self.draws < 1:
            raise InputError(f"expected at least 1 draw, got {self.draws}")


@dataclass(frozen=True)
class VoteRadii:
    """The answer of a vote, and the edits of tokens that it withstands.

    Attributes:
        label: the class that the vote answers; None where it abstains, having no clear majority.
        votes: copies with that class, or with the likeliest one where it abstains.
        draws: copies that were counted.
        share: with confidence 1 - α, at least this share of all copies gets the class.
        substitutions: of tokens by any others.
        deletions: of tokens.
        insertions: of tokens, anywhere.
        edits: any mixture of these.
    """

    label: int | None
    votes: int
    draws: int
    share: float
    substitutions: int
    deletions: int
    insertions: int
    edits: int


def vote_radii(run: Run, text: str, deletion: Deletion) -> VoteRadii:
    """What most copies of a text are answered, and the edits that this withstands.

    Claim: with probability 1 - ``ALPHA`` over the deletions, the class that the model gives to most
    of all copies stays the same after any edits of tokens within the radius, whatever the model.
    Not covered: the model's answer to the text itself, which may be another; the chance of several
    texts together; whether an edited text means the same; what one changed word does to tokens.
    Source: Huang et al. 2023 (arXiv:2302.01757) and 2024 (CERT-ED, arXiv:2408.00728); class chosen
    apart as in Cohen et al. 2019 (arXiv:1902.02918); Clopper and Pearson 1934.

    Args:
        run: any text classifier.
        text: the text; all of it counts, also beyond what the model reads at once.
        deletion: how copies are made.

    Raises:
        InputError: the text is not valid Unicode.
    """
    ids = run.tokenizer.encode(text, WHOLE).ids
    choosing, counting = _copies(ids, run.model.config.max_length, deletion)
    labels = _labels(run, [*(choosing | counting)])
    first = _votes(choosing, labels, run.model.config.num_labels)
    likeliest = int(first.argmax())
    votes = int(_votes(counting, labels, run.model.config.num_labels)[likeliest])
    share = lower_share(votes, deletion.draws, ALPHA)
    if share <= 0.5:
        return VoteRadii(None, votes, deletion.draws, share, 0, 0, 0, 0)
    substitutions = _most(share, deletion.rate, "substitutions")
    return VoteRadii(
        likeliest,
        votes,
        deletion.draws,
        share,
        substitutions,
        _most(share, deletion.rate, "deletions"),
        _most(share, deletion.rate, "insertions"),
        substitutions,  # no mixture is worse than as many of these
    )


def certify_votes(
    run: Run,
    texts: Sequence[str],
    deletion: Deletion,
    work: WorkFolder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[VoteRadii]:
    """``vote_radii`` of many texts, in their order.

    Args:
        run: any text classifier.
        texts: N of them.
        deletion: how copies are made.
        work: where finished texts are kept and found again; None keeps none.
        progress: called with texts done and N.

    Raises:
        InputError: as ``vote_radii``; or the work folder cannot be used.
    """
    found = []
    for number, text in enumerate(texts):
        name = f"{number:06d}.json"
        kept = work.read(name) if work else None
        radii = VoteRadii(**json.loads(kept)) if kept else vote_radii(run, text, deletion)
        if work and not kept:
            work.write(name, json.dumps(asdict(radii)).encode())
        found.append(radii)
        if progress:
            progress(number + 1, len(texts))
    return found


def lower_share(votes: int, draws: int, alpha: float) -> float:
    """The one-sided lower limit of Clopper and Pearson on a share, with confidence 1 - α."""
    return float(beta.ppf(alpha, votes, draws - votes + 1)) if votes else 0.0


def _most(share: float, rate: float, kind: str) -> int:
    """The most edits of a kind after which more than half of the copies get the class."""
    m = 0
    while guarantees.vote_share(share, rate, **{kind: m + 1}) > 0.5:
        m += 1
    return m


def _copies(ids: Ids, longest: int, deletion: Deletion) -> tuple[Counter[Ids], Counter[Ids]]:
    """How often each copy was drawn, to choose the class and to count its votes."""
    first, *inner, last = ids
    digest = hashlib.sha256(np.array(ids, dtype=np.int64).tobytes()).digest()
    rng = np.random.default_rng([deletion.seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])
    tokens, found = np.array(inner, dtype=np.int64), []
    for count in (SELECTION, deletion.draws):
        drawn: Counter[Ids] = Counter()
        for _ in range(count):
            kept = tokens[rng.random(len(tokens)) >= deletion.rate][: longest - 2]
            drawn[(first, *kept.tolist(), last)] += 1
        found.append(drawn)
    return found[0], found[1]


def _labels(run: Run, copies: list[Ids]) -> dict[Ids, int]:
    """What the model answers to each copy."""
    encodings = [
        Encoding(ids, (None, *((i, i + 1) for i in range(len(ids) - 2)), None)) for ids in copies
    ]
    features = pooled_features(run.model, run.modality, encodings, AT_ONCE)
    with torch.no_grad():
        labels = run.model.head(features).argmax(1).tolist()
    return dict(zip(copies, labels, strict=True))


def _votes(drawn: Counter[Ids], labels: dict[Ids, int], classes: int) -> np.ndarray:
    votes = np.zeros(classes, dtype=np.int64)
    for ids, count in drawn.items():
        votes[labels[ids]] += count
    return votes

"""What a server's answers give away, as ``attnpriv-client audit`` measured it through the wire.

Nothing is measured here. The file of that audit is read, so that the report can put what answers
give away under the server's policy beside what the run folder gives away.

Claim: none of its own; verdicts are those of the file, held against ε and δ on the model card where
that caller may read it. Condition: the server served this run, which its name tells and nothing
proves. Not covered: other callers, and other policies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from attnpriv.audit.figures import Figures
from attnpriv.audit.subject import Pass, Progress, Subject
from attnpriv.errors import InputError
from attnpriv.leaks import FORMAT, FORMAT_VERSION, Leak
from attnpriv.verdicts import GRAVITY, Verdict

FIELDS = ("probabilities", "attention", "layer_attention", "integrated_gradients")
TAKEN = ("model", "version", "rows", "charged_epsilon", "leaks")
EXPECTED = f"the file that {FORMAT} --out wrote, of this version"


@dataclass(frozen=True)
class ServedAnswers:
    """An audit of a server's answers.

    Attributes:
        model: what the server calls the run.
        version: the version that answered.
        rows: how many rows were asked about.
        released: what the answers held beside labels.
        redacted: whether explanations hid personal data; None without explanations.
        charged_epsilon: what drawn answers were charged.
        leaks: what each attack found.
        sha256: of the file.
    """

    model: str
    version: str
    rows: int
    released: tuple[str, ...]
    redacted: bool | None
    charged_epsilon: float
    leaks: tuple[Leak, ...]
    sha256: str


@dataclass(frozen=True)
class ServedResult:
    """What answers give away; the fields are those of ``ServedAnswers``, with one verdict.

    Attributes:
        version: of the model that answered.
        rows: how many rows were asked about.
        released: what the answers held beside labels.
        redacted: whether explanations hid personal data; None without explanations.
        charged_epsilon: what drawn answers were charged.
        leaks: what each attack found.
        verdict: the gravest of those of the attacks that ran.
    """

    version: str
    rows: int
    released: tuple[str, ...]
    redacted: bool | None
    charged_epsilon: float
    leaks: tuple[Leak, ...]
    verdict: Verdict


def read_answers(path: Path) -> ServedAnswers:
    """The file of an audit of answers.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        content = path.read_bytes()
        plain: dict[str, Any] = json.loads(content)
        if (plain["format"], plain["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise KeyError
        release = plain["measures"]["release"]
        found: ServedAnswers = TypeAdapter(ServedAnswers).validate_python(
            {
                **{name: plain[name] for name in TAKEN},
                "released": [name for name in FIELDS if release[name]],
                "redacted": release["redacted"],
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        raise InputError(f"{path}: expected {EXPECTED}") from None
    if all(leak.not_run for leak in found.leaks):
        raise InputError(f"{path}: no attack was run, so there is nothing to put into a report")
    return found


def match_answers(
    names: Sequence[str], answers: Sequence[ServedAnswers]
) -> list[ServedAnswers | None]:
    """For each run the audit of its answers, or None.

    Args:
        names: of the runs.
        answers: in any order.

    Raises:
        InputError: a server calls its model otherwise, or two are of one run.
    """
    found: dict[str, ServedAnswers] = {}
    for each in answers:
        if each.model not in names:
            raise InputError(
                f"expected answers of {', '.join(names)}, got those of a model called {each.model}"
            )
        if each.model in found:
            raise InputError(f"expected one audit of the answers of {each.model}, got two")
        found[each.model] = each
    return [found.get(name) for name in names]


def run(subject: Subject, passed: Pass, progress: Progress, figures: Figures) -> ServedResult:
    """As a measure of an audit."""
    served = subject.served
    assert served is not None
    verdicts = [leak.verdict for leak in served.leaks if leak.verdict is not None]
    return ServedResult(
        version=served.version,
        rows=served.rows,
        released=served.released,
        redacted=served.redacted,
        charged_epsilon=served.charged_epsilon,
        leaks=served.leaks,
        verdict=max(verdicts, key=GRAVITY.index),
    )

"""How many edits of a text cannot change a run's answer, where the run can tell."""

from __future__ import annotations

from collections.abc import Sequence

from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.edits import EditCertifier, EditRadii
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import encode_texts


def edit_certifier(run: Run) -> EditCertifier:
    """What certifies the run's answers; made once a run.

    Raises:
        InputError: the run's model reads tokens in their context, or its weights cannot be used.
    """
    if run.edit_certifier is None:
        raise InputError(
            f"expected a run trained with --encoder words, got {run.name!r} with encoder "
            f"{run.model.config.encoder}: where tokens are read in their context, one of them "
            "moves all others, and no number of edits is certified"
        )
    return run.edit_certifier


def can_certify(run: Run) -> bool:
    """Whether ``certified_substitutions`` has an answer for the run's texts.

    Like it, the first call for a run takes a moment longer.
    """
    try:
        return run.edit_certifier is not None
    except InputError:
        return False


def certified_substitutions(run: Run, encoding: Encoding) -> int:
    """How many tokens of a text can be any others of the vocabulary without changing the answer.

    Claim, condition and what is not covered: as ``EditCertifier``. The first call for a run takes a
    moment longer.

    Args:
        run: trained with encoder ``words``.
        encoding: of the text, as the run reads it.

    Raises:
        InputError: as ``edit_certifier``.
    """
    return edit_certifier(run).substitutions(encoding)


def certify_texts(run: Run, texts: Sequence[str]) -> list[EditRadii]:
    """All radii of each text, in their order.

    Raises:
        InputError: as ``edit_certifier``, or a text is not valid Unicode.
    """
    certifier = edit_certifier(run)
    return [certifier.radii(encoding) for encoding in encode_texts(run, texts)]

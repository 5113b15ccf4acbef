"""What ``attnpriv certify --deletion`` prints: votes over randomly shortened copies of texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from attnpriv.audit.robustness import EDITS
from attnpriv.cli.certify import print_shares
from attnpriv.cli.output import console, print_json, resumable
from attnpriv.errors import InputError
from attnpriv.progress import progress_bars
from attnpriv.replacing import replace_file
from attnpriv.work_folder import WorkFolder, open_work_folder

if TYPE_CHECKING:
    from attnpriv.runs.deletion import Deletion, VoteRadii
    from attnpriv.runs.folder import Run

LIMITS = (
    "A radius holds with 99.9 % confidence for each text, for every choice of tokens and places.",
    "It is about the answer of the vote, which may differ from the model's answer to the text.",
    "A token is a word or a piece of one: a misspelt or joined word can be several.",
    "It does not say that the answer is right, nor that an edited text means the same.",
)


def print_votes(
    run: Run,
    texts: list[str],
    labels: list[int] | None,
    deletion: Deletion,
    out: Path | None,
    resume: bool,
    json_: bool,
) -> None:
    """Certify texts by votes, print the result, and write it to a file if there shall be one.

    Raises:
        InputError: there is nothing to resume, or the file cannot be written.
    """
    if resume and out is None:
        raise InputError("--resume needs the --out of the command that was interrupted")
    radii = _certified(run, texts, labels, deletion, out, resume)
    told = _told(run, radii, labels, deletion)
    if json_:
        print_json(told)
        return
    console.print(_table(run, radii))
    print_shares(_shares(radii, labels), "answered" if labels is None else "answered rightly")
    console.print(f"abstentions: {told['abstentions']} of {len(radii)}")
    for limit in LIMITS:
        console.print(limit, soft_wrap=True)


def _certified(
    run: Run,
    texts: list[str],
    labels: list[int] | None,
    deletion: Deletion,
    out: Path | None,
    resume: bool,
) -> list[VoteRadii]:
    from attnpriv.runs.deletion import certify_votes

    with resumable(lambda: out is not None and _work(out).has_begun), progress_bars() as progress:
        task = progress.add_task("certifying texts", total=len(texts))

        def on_text(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if out is None:
            return certify_votes(run, texts, deletion, None, on_text)
        identity = {"run": run.hashes, "texts": _sha256(texts), **asdict(deletion)}
        job = f"certification in {out}"
        with open_work_folder(_work(out).path, identity, job=job, resume=resume) as work:
            radii = certify_votes(run, texts, deletion, work, on_text)
            _write(out, _told(run, radii, labels, deletion))
        return radii


def _write(out: Path, told: dict[str, Any]) -> None:
    try:
        replace_file(out, f"{json.dumps(told, indent=2)}\n".encode(), mode=0o600)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error


def _work(out: Path) -> WorkFolder:
    return WorkFolder(out.with_name(f".{out.name}.partial"), {})


def _sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _shares(radii: list[VoteRadii], labels: list[int] | None) -> Any:
    from attnpriv.audit.certified import certified_shares

    if labels is None:
        return certified_shares(radii, [each.label is not None for each in radii], (0, *EDITS))
    right = [each.label == label for each, label in zip(radii, labels, strict=True)]
    return certified_shares(radii, right, (0, *EDITS))


def _told(
    run: Run, radii: list[VoteRadii], labels: list[int] | None, deletion: Deletion
) -> dict[str, Any]:
    listed = [{**asdict(each), "label": _name(run, each.label)} for each in radii]
    return {
        "run": run.name,
        "deletion": asdict(deletion),
        "texts": listed,
        "abstentions": sum(each.label is None for each in radii),
        "certified": [asdict(share) for share in _shares(radii, labels)],
        "limits": LIMITS,
    }


def _name(run: Run, label: int | None) -> str | None:
    return None if label is None else run.label_names[label]


def _table(run: Run, radii: list[VoteRadii]) -> Table:
    columns = ("text", "label", "votes", "substitutions", "deletions", "insertions", "any edits")
    table = Table(*columns, title=f"{run.name}: how many edits leave the vote as it is")
    for number, each in enumerate(radii, start=1):
        label = _name(run, each.label)
        counts = (each.substitutions, each.deletions, each.insertions, each.edits)
        numbers = [""] * 4 if label is None else map(str, counts)
        table.add_row(str(number), label or "abstains", f"{each.votes} of {each.draws}", *numbers)
    return table

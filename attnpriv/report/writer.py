"""Write an audit to disk."""

from __future__ import annotations

import json
from pathlib import Path

from attnpriv.audit.results import Audit, to_json
from attnpriv.errors import InputError
from attnpriv.replacing import replace_file
from attnpriv.report.html import render_html

JSON_NAME, HTML_NAME = "audit.json", "report.html"
READABLE = 0o644  # a report is for more people than the one who made it


def write_report(audit: Audit, out_dir: str | Path, show_text: bool = False) -> tuple[Path, Path]:
    """Write ``audit.json`` and ``report.html``, each complete or not at all.

    Args:
        audit: what ``audit_runs`` returned.
        out_dir: made if it is missing; files of these names in it are replaced.
        show_text: also show the words of the example documents that are not marked as personal
            data. Whatever the detector missed is then in clear text in both files.

    Returns:
        The paths of the two files.

    Raises:
        InputError: the folder cannot be written.

    Claim: without ``show_text`` neither file holds a word of any record. Not covered: class names,
    names of runs and of the data, entity types, and all figures, which are exact functions of the
    audited rows.
    """
    text = json.dumps(
        to_json(audit, show_text), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    page = render_html(audit, show_text)
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (
            replace_file(folder / JSON_NAME, f"{text}\n".encode(), READABLE),
            replace_file(folder / HTML_NAME, page.encode(), READABLE),
        )
    except OSError as error:
        raise InputError(f"cannot write the report to {folder}: {error.strerror}") from error

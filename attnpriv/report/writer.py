"""Write an audit to disk."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from attnpriv.audit.results import Audit, to_json
from attnpriv.errors import InputError
from attnpriv.report.html import render_html

JSON_NAME, HTML_NAME = "audit.json", "report.html"


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
        return _replace(folder / JSON_NAME, text + "\n"), _replace(folder / HTML_NAME, page)
    except OSError as error:
        raise InputError(f"cannot write the report to {folder}: {error.strerror}") from error


def _replace(path: Path, text: str) -> Path:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's own mode would hide the report from its readers
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path

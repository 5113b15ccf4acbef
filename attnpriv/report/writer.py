"""Write an audit to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from attnpriv.errors import InputError
from attnpriv.replacing import check_folder, replace_file
from attnpriv.report.document import report_text
from attnpriv.report.gates import Outcome
from attnpriv.report.junit import junit
from attnpriv.report.markdown import markdown
from attnpriv.report.noised.document import AnyReport, NoisedReport, noised_text
from attnpriv.report.sarif import sarif

JSON_NAME, HTML_NAME = "audit.json", "report.html"
SARIF_NAME, MARKDOWN_NAME, JUNIT_NAME = "audit.sarif", "summary.md", "gates.xml"
UNPAIRED = "backslashreplace"  # names of folders may hold surrogates; JSON writes them so
READABLE = 0o644  # a report is for more people than the one who made it


def write_report(
    report: AnyReport,
    out_dir: str | Path,
    include_text: bool = False,
    outcomes: Sequence[Outcome] = (),
) -> tuple[Path, Path]:
    """Write ``audit.json`` and ``report.html``, each complete or not at all.

    Args:
        report: what ``make_report`` returned; of equal reports, equal bytes.
        out_dir: made if it is missing; files of these names in it are replaced, and those of
            ``write_checks`` removed, for they speak of another report.
        include_text: also show the words of the example documents that are not marked as personal
            data. Whatever the detector missed is then in clear text in both files.
        outcomes: of gates that were checked on it, for the page alone.

    Returns:
        The paths of the two files.

    Raises:
        InputError: the folder cannot be written.

    Claim: without ``include_text`` neither file holds a word of any record. Not covered: class
    names, names of runs and of the data, entity types, and all figures, which are exact functions
    of the audited rows.
    """
    if isinstance(report, NoisedReport):
        from attnpriv.report.noised.html import render_noised

        pages = {JSON_NAME: noised_text(report), HTML_NAME: render_noised(report, outcomes)}
    else:
        from attnpriv.report.html import render_html  # plots take seconds to import

        pages = {
            JSON_NAME: report_text(report, include_text),
            HTML_NAME: render_html(report, include_text, outcomes),
        }
    json_path, html_path = _write(Path(out_dir), pages, (SARIF_NAME, MARKDOWN_NAME, JUNIT_NAME))
    return json_path, html_path


def write_checks(
    report: AnyReport,
    out_dir: str | Path,
    outcomes: Sequence[Outcome] = (),
    gates_file: PurePath | None = None,
) -> tuple[Path, ...]:
    """Write what CI reads: ``audit.sarif``, ``summary.md`` and, where gates were checked, JUnit.

    Args:
        report: the audit with its findings.
        out_dir: made if it is missing; files of these names in it are replaced.
        outcomes: of the gates.
        gates_file: where the gates stand, as SARIF shall call it.

    Returns:
        The paths of the files.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(out_dir)
    pages = {
        SARIF_NAME: sarif(report, outcomes, PurePath(folder / JSON_NAME), gates_file),
        MARKDOWN_NAME: markdown(report, outcomes),
    }
    if outcomes:
        pages[JUNIT_NAME] = junit(outcomes)
    return _write(folder, pages)


def _write(folder: Path, pages: dict[str, str], stale: Sequence[str] = ()) -> tuple[Path, ...]:
    try:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        contents = {name: text.encode(errors=UNPAIRED) for name, text in pages.items()}
        return tuple(replace_file(folder / n, c, READABLE) for n, c in contents.items())
    except OSError as error:
        raise InputError(f"cannot write the report to {folder}: {error.strerror}") from error

"""What the commands print is data: brackets and colons in it are no markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnpriv.cli.output import console, error_console
from attnpriv.progress import progress_bars

Run = Callable[..., Any]
LABELS = ("[/x]", "[spam]", ":smile:")


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, and data in it, with names that would be markup."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 200)
    monkeypatch.setattr(error_console, "_width", 200)
    folder = tmp_path / "[bold]["
    folder.mkdir()
    lines = [f"{LABELS[i % 3]}\tmessage {i} of [red]all[/red]\n" for i in range(45)]
    (folder / "x].tsv").write_text("".join(lines), encoding="utf-8")
    return folder.relative_to(tmp_path)


def test_labels_texts_and_paths_are_printed_as_they_are(command: Run, odd: Path) -> None:
    data, out = odd / "x].tsv", odd / "run]"
    shown = command("data", "show", data, "--rows", 1)
    assert shown.code == 0, shown.err
    assert "[/x]: message 0 of [red]all[/red]" in shown.out
    trained = command(
        "train", "--data", data, "--epsilon", "none", "--steps", 1, "--trainable", "head",
        "--out", out,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert f"run folder: {out}" in trained.out
    evaluated = command("evaluate", out, "--data", data)
    assert evaluated.code == 0, evaluated.err
    assert command("certify", out).out.strip().startswith("run]: a row of 32 keys")
    for printed in (shown.out, trained.err, evaluated.out):
        assert all(label in printed for label in LABELS)
    assert "run], held-out rows" in evaluated.out
    made = command("data", "make", "tickets:rows=30", "--out", odd / "made].csv")
    assert str(odd / "made].csv") in made.out


def test_the_classes_and_their_counts_are_shown_before_training_and_written_nowhere(
    command: Run, odd: Path
) -> None:
    lines = ["ham\tone", "ham\ttwo", "spam\tsix"] * 6 + ["ham\tten"]
    data = odd / "mail.tsv"
    data.write_text("\n".join(lines), encoding="utf-8")
    trained = command(
        "train", "--data", data, "--epsilon", "none", "--steps", 1, "--out", odd / "run",
        "--trainable", "head",
    )  # fmt: skip
    assert "19 rows in 2 classes: ham 13, spam 6\n" in trained.err
    for path in (odd / "run").glob("*.json*"):
        assert not re.search(r"\b(13|19)\b", path.read_text(encoding="utf-8"))


def test_no_console_of_the_command_acts_on_what_it_prints() -> None:
    for each in (console, error_console):
        for printed in ("[/x]", "[red]spam[/red]", ":smile:"):
            assert each.render_str(printed).plain == printed
    with progress_bars() as progress:
        progress.add_task("[/x]", total=1)
        assert "[/x]" in "".join(
            segment.text for segment in console.render(progress.get_renderable())
        )

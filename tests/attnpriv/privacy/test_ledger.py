from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from attnpriv.errors import InputError
from attnpriv.privacy import epsilon_spent
from attnpriv.privacy.ledger import Ledger, NoisedSteps


def spent_after(steps: int) -> NoisedSteps:
    return NoisedSteps(noise_multiplier=2.0, sample_rate=0.1, steps=steps, max_grad_norm=0.5)


def record(ledger: Ledger, steps: int) -> None:
    ledger.record_steps(spent_after(steps), 1e-5, 0.1 * steps)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """That of a training of seven steps so far."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.record_not_covered("the names of the classes, «A» and «B»")
    record(ledger, 3)
    record(ledger, 7)
    return ledger


def test_entries_are_appended_in_order_and_carry_their_epsilon(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    spent = spent_after(7)
    Ledger(path).record_not_covered("the class names")
    Ledger(path).record_steps(spent, 1e-5, spent.epsilon(1e-5, "prv"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {"entry": "not_covered", "what": "the class names"}
    assert second["epsilon"] == epsilon_spent(2.0, 1e-5, 0.1, 7)
    assert (second["steps"], second["sample_rate"], second["delta"]) == (7, 0.1, 1e-5)


def test_the_last_entry_counts_and_none_means_no_step(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.noised_steps() == spent_after(7)
    assert Ledger(tmp_path / "nowhere").noised_steps() is None
    ledger.record_not_covered("something later")
    assert ledger.noised_steps() == spent_after(7)
    (tmp_path / "empty").touch()
    assert Ledger(tmp_path / "empty").noised_steps() is None


def test_what_is_not_covered_stands_there_once(ledger: Ledger) -> None:
    """A release that is made again after a crash says it again."""
    before = ledger.path.read_bytes()
    ledger.record_not_covered("the names of the classes, «A» and «B»")
    assert ledger.path.read_bytes() == before
    ledger.record_not_covered("the names of the classes")
    assert len(ledger.path.read_bytes().splitlines()) == 4


def test_a_line_cut_short_anywhere_never_counts_and_goes_with_the_next_entry(
    ledger: Ledger,
) -> None:
    whole = ledger.path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for length in range(len(last)):
        ledger.path.write_bytes(whole[: len(whole) - len(last) + length])
        assert ledger.noised_steps() == spent_after(3)
        record(ledger, 7)
        assert ledger.path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"entry": "noised_steps"}',
        b'{"entry": "noised_steps", "steps": 3}',
        b"\xff\xfe",
        b'{"entry": "not_covered", "what": "x"}\r{',
    ],
)
def test_a_line_that_is_no_entry_is_refused_wherever_it_stands(ledger: Ledger, line: bytes) -> None:
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    for place in range(len(lines) + 1):
        ledger.path.write_bytes(b"".join([*lines[:place], line + b"\n", *lines[place:]]))
        with pytest.raises(InputError, match="is not a privacy ledger: "):
            ledger.noised_steps()
        before = ledger.path.read_bytes()
        record(ledger, 9)
        assert ledger.path.read_bytes().startswith(before), "an entry takes nothing away"


def test_an_entry_is_on_disk_when_the_call_returns(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel is asked to write is all of the file, and its name."""
    synced: list[bytes] = []
    folders: list[int] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        inode = os.fstat(descriptor).st_ino
        if inode == ledger.path.stat().st_ino:
            synced.append(ledger.path.read_bytes())
        else:
            folders.append(inode)

    monkeypatch.setattr(os, "fsync", watch)
    record(ledger, 8)
    assert synced == [ledger.path.read_bytes()]
    assert folders == [ledger.path.parent.stat().st_ino]


def test_a_full_disk_costs_no_entry(ledger: Ledger) -> None:
    """The kernel lets the file grow by some bytes only, and then by none."""
    before = ledger.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (60, 1, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                record(ledger, 9)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(ledger.path.read_bytes()) == len(before) + room
        assert ledger.noised_steps() == spent_after(7)
    record(ledger, 9)
    assert ledger.noised_steps() == spent_after(9)
    assert ledger.path.read_bytes().startswith(before)

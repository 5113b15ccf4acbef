"""The same audit gives the same bytes, however its work is cut, shared out or interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnpriv.audit import tasks
from attnpriv.audit.results import to_json
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.audit.work import NAME, open_audit_folder
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.jobs import ProcessPool
from attnpriv.runs.folder import load_run

TINY = AuditOptions(
    documents=20,
    members=20,
    ig_documents=2,
    ig_steps=3,
    faithfulness_documents=2,
    sensitivity_documents=1,
    counterfactual_documents=4,
    memorisation_documents=4,
    pgd_documents=2,
    text_attack_documents=1,
    examples=1,
    permutations=20,
    resamples=20,
)
IDENTITY = {"data": "these tickets", "options": 1}
MakeAudit = Callable[..., str]


@pytest.fixture(scope="module")
def audited(tiny_run: Path, tickets: Dataset) -> MakeAudit:
    def make(**how: object) -> str:
        audit = audit_runs([load_run(tiny_run)], tickets, None, TINY, **how)  # type: ignore[arg-type]
        return json.dumps(to_json(audit, include_text=True), sort_keys=True, allow_nan=False)

    return make


@pytest.fixture(scope="module")
def expected(audited: MakeAudit) -> str:
    return audited()


@pytest.mark.exhaustive
def test_pieces_of_another_size_and_more_threads_change_no_bit(
    audited: MakeAudit, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CHUNK", 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert audited() == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.exhaustive
def test_two_processes_change_no_bit(
    audited: MakeAudit, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CHUNK", 6)
    last: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        last[stage] = done, total

    assert audited(executor=ProcessPool(2), progress=progress) == expected
    assert last["tiny: predictions and attention"] == (20, 20)
    assert "the whole audit" in last
    assert all(done == total for done, total in last.values())


def test_an_interrupted_audit_goes_on_to_the_same_bits(
    audited: MakeAudit, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CHUNK", 8)
    begun: list[str] = []
    for resume, stop in ((False, ("attention", 11)), (True, ("occlusion", 1))):

        def progress(stage: str, done: int, total: int, stop: tuple[str, int] = stop) -> None:
            begun.append(stage)
            if stop[0] in stage and done >= stop[1]:
                raise KeyboardInterrupt

        with (
            pytest.raises(KeyboardInterrupt),
            open_audit_folder(tmp_path, IDENTITY, resume=resume) as work,
        ):
            audited(work=work, progress=progress)
    files = sorted(path.name for path in (tmp_path / NAME).iterdir())
    assert files == [
        "0-attention-000000.npz", "0-attention-000008.npz", "0-attention-000016.npz",
        "0-attribution.json", "0-conductance.json", "0-gradients-000004.npz",
        "0-members-000000.npz", "0-members-000008.npz", "0-members-000016.npz",
        "identity.json", "lock",
    ]  # fmt: skip
    steps: list[tuple[str, int]] = []
    with open_audit_folder(tmp_path, IDENTITY, resume=True) as work:
        resumed = audited(work=work, progress=lambda stage, done, _: steps.append((stage, done)))
    assert resumed == expected
    for stage in ("tiny: integrated gradients", "tiny: lift of integrated gradients"):
        assert [name for name, _ in steps].count(stage) == 1, "it was not measured again"
    assert not (tmp_path / NAME).exists()


def test_a_work_folder_is_for_one_audit_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="there is none"),
        open_audit_folder(tmp_path, IDENTITY, resume=True),
    ):
        pass
    with pytest.raises(KeyboardInterrupt), open_audit_folder(tmp_path, IDENTITY, resume=False):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [], "nothing was finished"
    with (
        pytest.raises(KeyboardInterrupt),
        open_audit_folder(tmp_path / "out", IDENTITY, resume=False) as work,
    ):
        work.write("0-x.json", b"{}")
        raise KeyboardInterrupt
    with (
        pytest.raises(InputError, match="go on with --resume"),
        open_audit_folder(tmp_path / "out", IDENTITY, resume=False),
    ):
        pass
    other = {**IDENTITY, "options": 2}
    with (
        pytest.raises(InputError, match="its options is 1, this command's is 2"),
        open_audit_folder(tmp_path / "out", other, resume=True),
    ):
        pass
    (tmp_path / "out" / NAME / "identity.json").write_text("[")
    with (
        pytest.raises(InputError, match="no identity.json that this version"),
        open_audit_folder(tmp_path / "out", IDENTITY, resume=True),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_a_damaged_piece_is_one_clear_error(
    audited: MakeAudit, tmp_path: Path, content: bytes
) -> None:
    with (
        pytest.raises(InputError, match=r"0-attention-000000\.npz is damaged"),
        open_audit_folder(tmp_path, IDENTITY, resume=False) as work,
    ):
        work.write("0-attention-000000.npz", content)
        audited(work=work)

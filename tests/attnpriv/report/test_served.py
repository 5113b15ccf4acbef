"""The chapter that puts a server's answers beside the run folder, and the file that it reads."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from attnpriv.audit.leakage.served import match_answers, read_answers
from attnpriv.audit.results import Audit, NotRun
from attnpriv.errors import InputError
from attnpriv.estimates import Estimate
from attnpriv.leaks import ATTACKS, FORMAT, FORMAT_VERSION, Leak
from attnpriv.report.blocks import Table
from attnpriv.report.chapters.served import WORDS, body, finding

FOUND = Leak("membership", "AUC", 110, Estimate(0.8, 0.7, 0.9), 0.5, "FOUND")
WITHHELD = Leak("lira", not_run="the server releases no probabilities")


def plain(*leaks: Leak) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": "mail",
        "version": "3",
        "rows": 110,
        "charged_epsilon": 4.0,
        "measures": {
            "release": {
                "probabilities": True,
                "attention": None,
                "layer_attention": None,
                "integrated_gradients": False,
                "redacted": None,
            }
        },
        "leaks": [asdict(leak) for leak in leaks],
    }


def write(folder: Path, value: Any) -> Path:
    path = folder / "audit.json"
    path.write_text(json.dumps(value))
    return path


def test_the_file_of_an_audit_of_answers_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = read_answers(write(tmp_path, plain(FOUND, WITHHELD)))
    assert found.leaks == (FOUND, WITHHELD)
    assert (found.model, found.released, found.charged_epsilon) == ("mail", ("probabilities",), 4.0)
    assert match_answers(["other", "mail"], [found]) == [None, found]
    with pytest.raises(InputError, match="expected answers of other, got those of .* called mail"):
        match_answers(["other"], [found])
    with pytest.raises(InputError, match="one audit of the answers of mail, got two"):
        match_answers(["mail"], [found, found])


@pytest.mark.parametrize("value", [[], {}, {**plain(FOUND), "format": "x"},
                                   {**plain(FOUND), "leaks": [{"attack": "magic"}]}])  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match="expected the file that attnpriv-client audit --out"):
        read_answers(write(tmp_path, value))
    with pytest.raises(InputError, match="no attack was run"):
        read_answers(write(tmp_path, plain(WITHHELD)))


def test_each_attack_stands_beside_that_on_the_folder(synthetic: Audit) -> None:
    result = synthetic.results[0]
    leaks = (FOUND, WITHHELD, *(Leak(each, not_run="-") for each in ATTACKS[2:]))
    served = replace(result.served, leaks=leaks, verdict="FOUND")
    (table,) = (b for b in body([replace(result, served=served)], False) if isinstance(b, Table))
    first, second = table.rows[0], table.rows[1]
    assert first[0] == WORDS["membership"]
    assert first[4:] == ("0.800 [0.700, 0.900]", "FOUND")
    assert first[3] == result.membership.judgement.verdict
    assert second[4:] == ("not run: the server releases no probabilities", "")
    assert second[3] == result.shadow_attacks.lira.judgement.verdict
    assert len(table.rows) == len(ATTACKS)


def test_what_is_found_in_answers_is_as_grave_as_what_it_is_about(synthetic: Audit) -> None:
    result = synthetic.results[0]

    def level(*leaks: Leak) -> str | None:
        return finding(replace(result, served=replace(result.served, leaks=leaks))).level

    assert level(FOUND, WITHHELD) == "bad"
    assert level(replace(FOUND, attack="hidden_words")) == "warn"
    assert level(replace(FOUND, verdict="INCONCLUSIVE")) == "warn"
    assert level(replace(FOUND, verdict="CHANCE")) == "info"
    assert finding(replace(result, served=NotRun("why"))).state == "not run"

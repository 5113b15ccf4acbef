"""``make browser``: the report of a real audit, opened in headless Chromium as people open it.

    python -m tests.browser MODULES OUT  # OUT is made anew

MODULES is a folder whose ``node_modules`` hold what ``package.json`` names; Chromium itself is at
``$CHROMIUM``, or where Debian puts it. ``check.mjs`` says what is checked. A page with known faults
is the control: each of them must be found. Screenshots and the PDF lie in OUT afterwards; they want
to be looked at, since no check sees what is ugly.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.report import check_gates, provenance, read_gates, read_report, write_report
from attnpriv.report.document import make_report
from attnpriv.runs.folder import load_run
from attnpriv.sensitive import PresidioDetector
from attnpriv.training import train

DATA = "tickets:rows=400"
HARDENED = AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm")
SMALL = AuditOptions(
    documents=60,
    members=60,
    ig_documents=8,
    ig_steps=8,
    pgd_documents=8,
    text_attack_documents=1,
    permutations=200,
    resamples=200,
)
GATES = """
[[gate]]
name = "no word can take half of the attention"
measure = "attention.certificate.largest_weight_bound"
operator = "at most"
threshold = 0.5
run = "hardened"

[[gate]]
name = "personal data gets no more attention than twice its share"
measure = "attention.overall.lift"
operator = "at most"
threshold = 2.0
run = "plain"

[[gate]]
name = "trained with a small ε"
measure = "card.epsilon"
operator = "at most"
threshold = 1.0
run = "plain"
"""
FAULTS = """
<img alt="" src="http://outside.example/x.png">
<p style="color: #ccc; background: #fff">pale</p>
<div style="width: 4000px">wide</div>
<a href="#verdict" style="outline: none">no outline</a>
</main>
"""
FOUND = ("console: ", "request: ", "axe: serious: color-contrast", "px wider", "no outline")


def make_page(folder: Path) -> Path:
    """The report of a plain model and of a private and hardened one, with gates."""
    data = load_dataset(DATA)
    schedule = TrainConfig(trainable="all", steps=40)
    train(data, folder / "plain", encoder="scratch", attention=AttentionConfig(), config=schedule,
          privacy=None)  # fmt: skip
    train(data, folder / "hardened", encoder="scratch", attention=HARDENED, config=schedule,
          privacy=PrivacyConfig(epsilon=3.0))  # fmt: skip
    runs = [load_run(folder / name) for name in ("plain", "hardened")]
    audit = audit_runs(runs, data, PresidioDetector(), SMALL)
    report = make_report(audit, provenance(runs, data))
    (folder / "gates.toml").write_text(GATES)
    json_path, _ = write_report(report, folder)
    outcomes = check_gates(read_report(json_path), read_gates(folder / "gates.toml"))
    return write_report(report, folder, outcomes=outcomes)[1]


def look(modules: Path, page: Path, out: Path) -> dict[str, Any]:
    """What the browser found."""
    out.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("check.mjs")
    done = subprocess.run(["node", script, modules, page, out], stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(modules: Path, out: Path) -> int:
    """Exit code 0 where nothing is wrong with the page and the control was caught."""
    torch.set_num_threads(1)  # small tensors gain nothing from more
    shutil.rmtree(out, ignore_errors=True)  # training begins in an empty folder
    page = make_page(out / "report")
    found = look(modules, page, out)
    print(json.dumps(found, indent=2))  # noqa: T201
    faulty = out / "faulty.html"
    faulty.write_text(page.read_text().replace("</main>", FAULTS))
    wrong = "\n".join(look(modules, faulty, out / "faulty")["wrong"])
    missed = [fault for fault in FOUND if fault not in wrong]
    if missed:
        sys.exit(f"the control was not caught: {missed}")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

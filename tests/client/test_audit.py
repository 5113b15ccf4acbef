"""The audit from outside, against a real server whose models' secrets are known."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from attnpriv.audit.leakage.shadow_folder import Settings, write_answers, write_settings
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import read_file
from attnpriv.data.text import pad_batch
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import CARD, LEDGER, load_run, publish, write_json, write_model
from attnpriv.shadow_answers import ANSWERS
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceServicer
from attnpriv_client import Client
from attnpriv_client.audit import read_rows, run_audit
from attnpriv_client.audit.exposure import NO_SECRETS
from attnpriv_client.audit.hidden_words import NOTHING_HIDDEN
from attnpriv_client.audit.leaks import MEASURE_OF, WITHHELD
from attnpriv_client.audit.results import to_json
from attnpriv_client.audit.shadow_answers import read_shadow_answers
from attnpriv_client.audit.shadow_attacks import NO_SHADOWS
from attnpriv_client.audit.view import audit_view

NAMES = ("Bob", "Eve", "Ann", "Kim", "Lea", "Max", "Tom", "Zoe", "Ida", "Jon")
HOSTS = ("river", "maple")
TOPICS = ("parcel", "refund")
FILLERS = ("today", "again", "since", "because", "nobody", "parcels", "please", "kindly", "early")
LABELS = ("no", "yes")
MARKER = "qzx"


@dataclass(frozen=True)
class Mail:
    """One text, what it says about the sender, and whether it is about a refund."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    host: int
    topic: int

    def record(self, label: int, member: bool | None = None) -> dict:
        spans = [{"start": s, "end": e, "entity_type": t} for s, e, t in self.spans]
        return {"text": self.text, "label": LABELS[label], "spans": spans, "member": member}


def make_mails(count: int, seed: int) -> list[Mail]:
    rng = random.Random(seed)
    mails = []
    for _ in range(count):
        host, topic, name = rng.randrange(2), rng.randrange(2), rng.choice(NAMES)
        address = f"{MARKER}{rng.randrange(10**4):04d}@{HOSTS[host]}.com"
        words = [TOPICS[topic], *rng.sample(FILLERS, 6), "from", name, "reach", address, "soon"]
        text = " ".join(words)
        at, who = text.index(address), text.index(f" {name} ") + 1
        spans = ((who, who + len(name), "PERSON"), (at, at + len(address), "EMAIL_ADDRESS"))
        mails.append(Mail(text, spans, host, topic))
    return mails


MEMBERS = make_mails(50, seed=1)
FRESH = make_mails(60, seed=2)
STEPS = 40


def new_model() -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(
        ModelConfig(
            encoder="scratch",
            vocab_size=512,
            dim=16,
            layers=2,
            heads=2,
            hidden_dim=16,
            max_length=48,
            num_labels=2,
            attention=AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm"),
        )
    )


def fit(batches: Iterable[tuple[Sequence[Mail], Sequence[int]]]) -> TextClassifier:
    model = new_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for mails, labels in batches:
        encodings = HashTokenizer(512).encode_batch([mail.text for mail in mails], 48)
        optimizer.zero_grad()
        F.cross_entropy(model(*pad_batch(encodings, 0)), torch.tensor(labels)).backward()
        optimizer.step()
    return model.eval()


def fit_rule(label: Callable[[Mail], int]) -> TextClassifier:
    """New mails in each step, so that nothing but the rule can be learned."""
    drawn = (make_mails(32, seed) for seed in range(100, 100 + STEPS))
    return fit((mails, [label(mail) for mail in mails]) for mails in drawn)


def save(folder: Path, model: TextClassifier, like: Path) -> None:
    """A run folder around a model; its card is another's, so that the server lets it through."""
    staging = folder.with_name(f".{folder.name}")
    staging.mkdir()
    write_model(staging, model, LABELS, {}, None)
    card = load_run(like).card.as_written
    attention = {**card["attention"], "temperatures": [[2.0, 2.0]] * 2}
    card = card | {"label_names": list(LABELS), "attention": attention}
    write_json(staging / CARD, card)
    shutil.copy(like / LEDGER, staging)
    publish(staging, folder)


@pytest.fixture(scope="module")
def models(private_run: Path, tmp_path_factory) -> Path:
    """Run folders: ``leaky`` reads the host of the address, ``plain`` the topic, ``memo`` coins."""
    folder = tmp_path_factory.mktemp("models")
    coins = [random.Random(n).randrange(2) for n in range(len(MEMBERS))]
    save(folder / "leaky", fit_rule(lambda mail: mail.host), private_run)
    save(folder / "plain", fit_rule(lambda mail: mail.topic), private_run)
    save(folder / "memo", fit((MEMBERS, coins) for _ in range(60)), private_run)
    return folder


POLICY = """
[roles.open]
principals = ["open"]
predict = { label = { read = "full" }, probabilities = { read = "full" } }

[roles.open.explain]
tokens = { read = "full" }
label = { read = "full" }
probabilities = { read = "full" }
attention = { read = "full" }
layer_attention = { read = "full" }
integrated_gradients = { read = "full" }

[roles.redacted]
principals = ["redacted", "explainer", "predictor"]
predict = { label = { read = "full" }, probabilities = { read = "full" } }

[roles.redacted.explain]
tokens = { read = "redacted" }
label = { read = "redacted" }
probabilities = { read = "redacted" }
attention = { read = "redacted" }
layer_attention = { read = "redacted" }
integrated_gradients = { read = "redacted" }

[roles.whole]
principals = ["whole"]
predict = { label = { read = "full" } }

[roles.whole.explain]
tokens = { read = "redacted" }
label = { read = "full" }
integrated_gradients = { read = "full" }

[roles.labels]
principals = ["labels"]
predict = { label = { read = "full" } }

[roles.drawn]
principals = ["drawn"]
budget = { epsilon = 100000 }
predict = { label = { read = "full", epsilon = 2 } }

[roles.drawn.explain]
tokens = { read = "redacted" }
key = { epsilon = 2 }
"""
TOKEN = "token-of-"
ROLES = {
    "open": ["predict", "explain", "models"],
    "redacted": ["predict", "explain", "models"],
    "labels": ["predict", "explain"],
    "explainer": ["explain"],
    "predictor": ["predict"],
    "whole": ["predict", "explain"],
    "drawn": ["predict", "explain"],
}


@pytest.fixture(scope="module")
def address(models: Path, tmp_path_factory) -> Iterator[str]:
    """A real server of these models, with a caller for each policy."""
    folder = tmp_path_factory.mktemp("access")
    (folder / "policy.toml").write_text(POLICY)
    digests = {n: hashlib.sha256(f"{TOKEN}{n}".encode()).hexdigest() for n in ROLES}
    (folder / "principals.toml").write_text(
        "".join(
            f'[[principal]]\nname = "{name}"\nroles = {json.dumps(roles)}\n'
            f'tokens = [{{ sha256 = "{digests[name]}" }}]\n'
            for name, roles in ROLES.items()
        )
    )
    program = Path(sys.executable).with_name("attnpriv-server")
    options = ["--models", models, "--listen", "127.0.0.1:0", "--precision", "float32"]
    (folder / "detection.toml").write_text('language_model = "none"')
    options += ["--detection", folder / "detection.toml"]
    options += ["--budget", f"sqlite:///{folder / 'budget.db'}"]
    options += ["--policy", folder / "policy.toml", "--principals", folder / "principals.toml"]
    with subprocess.Popen(
        [program, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def write(path: Path, mails: Sequence[Mail], labels: Sequence[int]) -> Path:
    records = [mail.record(label) for mail, label in zip(mails, labels, strict=True)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Fresh mails, labelled by their hosts."""
    return write(tmp_path_factory.mktemp("data") / "mails.jsonl", FRESH, [m.host for m in FRESH])


@dataclass(frozen=True)
class Outcome:
    """What an audit printed and wrote."""

    value: dict
    printed: str
    table: str

    @property
    def measures(self) -> dict:
        return self.value["measures"]

    @property
    def leaks(self) -> dict[str, dict]:
        return {each["attack"]: each for each in self.value["leaks"]}

    @property
    def reasons(self) -> dict[str, str]:
        return {each["measure"]: each["reason"] for each in self.value["not_run"]}


@pytest.fixture(scope="module")
def audit(address, file) -> Callable[..., Outcome]:
    """Audit a model as one of the callers; each audit is made once."""

    @functools.cache
    def run(
        caller: str, model: str, data: Path = file, limit: int = 40, shadows: Path | None = None
    ) -> Outcome:
        with Client(address, token=f"{TOKEN}{caller}") as client:
            rows = read_rows(data)
            found = run_audit(
                client,
                model,
                rows,
                data=data.stem,
                source=str(data),
                version=None,
                limit=limit,
                seed=3,
                progress=lambda *_: None,
                shadows=None if shadows is None else read_shadow_answers(shadows),
            )
        console = Console(file=io.StringIO(), width=200)
        console.print(audit_view(found))
        value = to_json(found)
        return Outcome(value, json.dumps(value), console.file.getvalue())

    return run


def effect(outcome: Outcome, entity_type: str) -> dict:
    types = outcome.measures["counterfactual"]["types"]
    return next(each for each in types if each["entity_type"] == entity_type)


@pytest.mark.parametrize("caller", ["open", "labels"])
def test_a_model_that_reads_an_address_is_flagged(audit, caller) -> None:
    found = audit(caller, "leaky")

    email = effect(found, "EMAIL_ADDRESS")
    assert found.measures["counterfactual"]["valid"]
    assert (email["flagged"], email["entities"], email["left_out"]) == (True, 40, 0)
    assert email["same_length"] == 40  # every address of this file is as long as the others
    assert email["swap"]["flips"]["low"] > 0.2  # half of the addresses have the other host
    assert email["swap_null"]["flips"]["value"] == 0
    assert effect(found, "PERSON")["swap"]["flips"]["value"] == 0


@pytest.mark.parametrize("caller", ["open", "labels"])
def test_a_model_that_reads_a_topic_is_not(audit, caller) -> None:
    found = audit(caller, "plain")

    assert found.measures["counterfactual"]["valid"]
    for kind in ("EMAIL_ADDRESS", "PERSON"):
        assert not effect(found, kind)["flagged"]
        assert effect(found, kind)["swap"]["flips"]["value"] == 0
    assert effect(found, "EMAIL_ADDRESS")["swap_null"]["flips"]["low"] > 0


def test_everything_released_is_everything_measured(audit, models, file) -> None:
    found = audit("open", "leaky")

    release, certificate = found.measures["release"], found.measures["certificate"]
    assert list(found.measures) == [
        "release",
        "utility",
        "counterfactual",
        "lift",
        "faithfulness",
        "certificate",
    ]
    unknown = "no row has both a label and a membership flag"
    assert found.reasons["membership"] == found.reasons["explanation_attacks"] == unknown
    assert {*found.reasons} == {*MEASURE_OF.values()}
    assert (release["predictions"], release["explanations"]) == (40, 40)
    assert (release["redacted"], release["offsets"], release["repeat_difference"]) == (
        False,
        True,
        0.0,
    )
    assert release["probability_digits"] is None
    assert {each["shown"]["value"] for each in release["spans_shown"]} == {1.0}
    assert found.measures["utility"]["accuracy"]["value"] == 1.0
    assert (certificate["holds"], certificate["matches_card"]) == (True, True)
    assert certificate["labels_agree"]["value"] == 1.0
    assert certificate["largest_sum_error"] < 1e-5
    assert found.value["rows"] == 40
    assert found.value["rows_in_file"] == 60
    assert (release["private"], found.value["version"]) == (True, "1")


def test_scores_on_an_address_show_in_a_model_that_reads_it_alone(audit) -> None:
    lifts = {
        model: {each["score"]: each for each in audit("open", model).measures["lift"]["scores"]}
        for model in ("leaky", "plain")
    }

    leaky = lifts["leaky"]["integrated_gradients"]
    assert leaky["lift"]["low"] > leaky["null_high"]
    assert leaky["p_value"] < 0.01
    assert lifts["plain"]["integrated_gradients"]["lift"]["high"] < 1


def test_the_words_that_explanations_name_are_those_that_count(audit) -> None:
    for model in ("leaky", "plain"):
        faithfulness = audit("open", model).measures["faithfulness"]
        rankings = {each["ranking"]: each for each in faithfulness["rankings"]}
        assert faithfulness["valid"]
        assert rankings["integrated_gradients"]["comprehensiveness_gain"]["low"] > 0
        assert rankings["integrated_gradients"]["sufficiency_gain"]["low"] > 0
        assert rankings["random"]["comprehensiveness_gain"]["value"] == 0


def test_what_is_redacted_is_counted_apart(audit) -> None:
    found, whole = audit("redacted", "plain"), audit("open", "plain")

    release, lift = found.measures["release"], found.measures["lift"]
    shown = {each["entity_type"]: each["shown"]["value"] for each in release["spans_shown"]}
    assert shown == {"EMAIL_ADDRESS": 0.0, "PERSON": 1.0}  # the detector has no language model
    assert "PERSON" in release["cannot_see"]
    assert (release["redacted"], release["offsets"]) == (True, False)
    assert (lift["unaligned"], lift["hidden_entries"]) == (0, 40)
    assert lift["sensitive_tokens"] == 40  # the names
    # The same scores, so the same swaps change as much, up to the rounding of other batches.
    ours, theirs = (dict(numbers(each.measures["counterfactual"])) for each in (found, whole))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert max(map(abs, ours.values())) > 0.01


def numbers(measure: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number within a measure, by its path."""
    if isinstance(measure, dict | list | tuple):
        items = measure.items() if isinstance(measure, dict) else enumerate(measure)
        for key, value in items:
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(measure, int | float):
        yield path, float(measure)


def test_labels_alone_leave_the_rest_unmeasured(audit) -> None:
    found = audit("labels", "plain")

    denied = "PERMISSION_DENIED: the caller lacks the role, or the policy withholds the answer"
    assert found.reasons == {
        "membership": "no row has both a label and a membership flag",
        "shadow_attacks": NO_SHADOWS,
        "explanation_attacks": denied,
        "exposure": NO_SECRETS,
        "hidden_words": denied,
        "attributes": "the server releases labels alone",
        "lift": denied,
        "faithfulness": denied,
        "certificate": denied,
    }
    assert found.measures["counterfactual"]["compared"] == "labels"
    assert effect(found, "PERSON")["swap"]["drop"] is None
    release = found.measures["release"]
    assert (release["probabilities"], release["attention"], release["card"]) == (False, None, False)
    assert f"not run: lift: {denied}" in found.table


def test_who_may_only_ask_for_explanations_gets_what_they_tell(audit) -> None:
    found = audit("explainer", "plain")

    assert list(found.measures) == ["release", "hidden_words", "lift", "certificate"]
    assert found.measures["release"]["predictions"] == 0
    assert found.measures["certificate"]["matches_card"] is None
    assert found.measures["certificate"]["labels_agree"]["value"] is None


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> Path:
    """Rows that ``memo`` has learned by heart and rows that it has not, in a table of cells."""
    path = tmp_path_factory.mktemp("members") / "members.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Text", "label", "member"])
        for n, mail in enumerate(MEMBERS):
            table.writerow([mail.text, LABELS[random.Random(n).randrange(2)], "true"])
        for n, mail in enumerate(FRESH):
            table.writerow([mail.text, LABELS[n % 2], "false"])
    return path


@pytest.fixture(scope="module")
def shadows(members, tmp_path_factory) -> Path:
    """Shadow models that were never trained: each knows by heart the half that it saw."""
    folder = tmp_path_factory.mktemp("shadows")
    data, rng, models = read_file(members, label_names=LABELS), np.random.default_rng(1), 16
    (folder / ANSWERS).mkdir()
    write_settings(folder, Settings("memo", {}, data.fingerprint(), models, 0))
    for number in range(models):
        inside = rng.random(len(data)) < 0.5
        write_answers(folder, number, rng.normal(4.0 * inside, 1.5), inside)
    return folder


def test_membership_is_found_where_records_were_learned_by_heart(audit, members) -> None:
    memo, plain = (
        audit("predictor", model, members, 110).measures["membership"]
        for model in ("memo", "plain")
    )
    assert (memo["members"], memo["non_members"], memo["valid"]) == (50, 60, True)
    assert memo["judgement"]["verdict"] == "FOUND", "this caller may not read the card"
    assert memo["by"] == "log-odds"
    assert memo["auc"]["low"] > 0.6
    assert plain["valid"]
    assert plain["judgement"]["verdict"] == "NOT FOUND"


def test_shadow_models_attack_what_a_policy_answers(audit, members, shadows) -> None:
    memo, plain = (
        audit("predictor", model, members, 110, shadows).measures["shadow_attacks"]
        for model in ("memo", "plain")
    )
    assert (memo["models"], memo["members"], memo["non_members"]) == (16, 50, 60)
    assert memo["valid"]
    assert all(each["auc"]["low"] > 0.6 for each in memo["attacks"].values())
    assert memo["judgement"]["verdict"] == "FOUND"
    assert (plain["valid"], plain["judgement"]["verdict"]) == (True, "NOT FOUND")


def test_a_policy_of_labels_leaves_one_attack_on_members(audit, members, shadows) -> None:
    found = audit("labels", "memo", members, 110, shadows)

    by_labels = found.measures["membership"]
    assert (by_labels["by"], by_labels["valid"]) == ("labels", True)
    assert by_labels["auc"]["low"] > 0.6, "copies of a text tell what its probability would"
    assert found.reasons["shadow_attacks"] == "the server releases no probabilities"
    denied = "PERMISSION_DENIED: the caller lacks the role, or the policy withholds the answer"
    assert found.reasons["explanation_attacks"] == found.leaks["together"]["not_run"] == denied
    assert found.leaks["rmia"]["not_run"] == "the server releases no probabilities"
    assert [name for name, leak in found.leaks.items() if not leak["not_run"]] == ["membership"]
    nothing = audit("labels", "plain", members, 110).measures["membership"]
    assert (nothing["valid"], nothing["judgement"]["verdict"]) == (True, "NOT FOUND")


def test_explanations_are_attacked_beside_the_loss_and_the_texts(audit, members) -> None:
    found = audit("open", "memo", members, 110).measures["explanation_attacks"]

    assert (found["fitted"], found["members"], found["non_members"]) == (55, 25, 30)
    assert list(found["attacks"]) == ["attention", "attributions", "together"]
    assert found["loss"]["auc"]["low"] > 0.5
    assert found["texts"]["auc"]["low"] < 0.5 < found["texts"]["auc"]["high"]
    above = found["attacks"]["attention"]["above_loss"]
    assert above["low"] < above["value"] < above["high"]


def test_hidden_words_are_read_where_scores_follow_them(audit) -> None:
    """Beside placeholders, a policy may still show scores that were computed from all words."""
    whole, redacted = (audit(caller, "leaky").measures["hidden_words"] for caller in CALLERS)

    assert (whole["fitted"], whole["documents"], whole["words"]) == (20, 20, 60)
    assert whole["valid"]
    assert redacted["valid"]
    assert whole["judgement"]["verdict"] == "FOUND"
    # Of three words of each address com is always named, and river or maple; one occurs once.
    assert whole["by_type_top1"]["value"] < 0.6 < whole["top1"]["value"] < 0.67
    assert redacted["judgement"]["verdict"] == "NOT FOUND"
    assert audit("open", "leaky").reasons["hidden_words"] == NOTHING_HIDDEN


CALLERS = ("whole", "redacted")


def test_drawn_answers_are_used_as_they_come_and_paid_for(audit, members) -> None:
    found = audit("drawn", "memo", members, 40)

    # 40 labels, 8 copies of each text and 41 explanations cost 2 each, where something is hidden.
    assert 0 < found.value["charged_epsilon"] <= 2 * (40 + 8 * 40 + 41)
    assert found.measures["membership"]["by"] == "labels"
    assert "answers were drawn, which was charged ε = " in found.table
    assert found.leaks["attention"]["not_run"] == WITHHELD


def asked(address: str, model: str, file: Path) -> list[str]:
    return ["--target", address, "--model", model, "--file", str(file)]


def test_the_file_is_whole_private_and_the_same_each_time(
    command, address, file, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("ATTNPRIV_TOKEN", f"{TOKEN}labels")
    out, again = tmp_path / "audit.json", tmp_path / "again.json"

    first = command("audit", *asked(address, "plain", file), "--out", str(out))
    second = command("audit", *asked(address, "plain", file), "--out", str(again), "--json")

    assert (first.code, second.code) == (0, 0)
    assert out.read_bytes() == again.read_bytes()
    value = json.loads(out.read_text())
    assert json.loads(second.stdout) == value
    assert (value["format"], value["format_version"]) == ("attnpriv-client audit", 1)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path != again] == [out.name]
    assert "asking for up to 61 explanations" in first.stderr
    assert_no_text(first.stdout + first.stderr + second.stderr + out.read_text())


def assert_no_text(output: str) -> None:
    hosts = [f"{host}.com" for host in HOSTS]
    for secret in (MARKER, *hosts, *FILLERS, *(f" {name} " for name in NAMES), TOKEN):
        assert secret not in output


def test_no_output_holds_a_text(audit) -> None:
    for caller in ("open", "redacted", "labels", "explainer"):
        found = audit(caller, "plain")
        assert_no_text(found.printed + found.table)


class Scripted(AttnprivServiceServicer):
    """Says yes to all, with scores for each word; refuses with the text it was asked about.

    Attributes:
        explanations: how many it gives before it has no more.
        on_explain: called with the number of each before it is given.
        noise: added to every score, from one to the next.
    """

    def __init__(self) -> None:
        self.explanations = 1000
        self.on_explain = lambda number: None
        self.noise = 0.0
        self.given = 0

    def GetModel(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.PERMISSION_DENIED, request.name)

    def PredictStream(self, requests, context):  # noqa: N802
        for request in requests:
            one = pb.Prediction(label="yes", probabilities=[0.25, 0.75])
            count = len(request.request.texts)
            response = pb.PredictResponse(
                label_names=LABELS, predictions=[one] * count, version="7"
            )
            yield pb.PredictStreamResponse(number=request.number, response=response)

    def Explain(self, request, context):  # noqa: N802
        if self.given == self.explanations:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"no more of {request.text}")
        self.given += 1
        self.on_explain(self.given)
        attention = 0.1 + self.given * self.noise
        tokens = [
            pb.TokenExplanation(
                text=match[0],
                attention=attention,
                layer_attention=[attention],
                offsets=pb.Offsets(start=match.start(), end=match.end()),
            )
            for match in re.finditer(r"\S+", request.text)
        ]
        return pb.ExplainResponse(
            label_names=LABELS,
            prediction=pb.Prediction(label="yes", probabilities=[0.25, 0.75]),
            tokens=tokens,
            version="7",
        )


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


def test_a_spent_budget_leaves_measures_partly_run(command, serve, scripted, file) -> None:
    scripted.explanations = 25

    done = command("audit", *asked(serve(scripted), "m", file), "--json")

    value = json.loads(done.stdout)
    reason = (
        "RESOURCE_EXHAUSTED: the server answers no more of these for this caller: it is full, or a "
        "budget is spent"
    )
    assert done.code == 0
    partly = {each["measure"]: (each["rows"], each["of"]) for each in value["partly_run"]}
    assert partly == dict.fromkeys(("release", "lift", "faithfulness"), (25, 60))
    assert {each["reason"] for each in value["partly_run"]} == {reason}
    assert value["measures"]["lift"]["documents"] == 25
    assert value["measures"]["lift"]["scores"][0]["lift"]["value"] == pytest.approx(1.0)
    assert value["version"] == "7"
    assert_no_text(done.stdout + done.stderr)


def test_without_any_explanation_measures_are_not_run(command, serve, scripted, file) -> None:
    scripted.explanations = 0

    done = command("audit", *asked(serve(scripted), "m", file), "--json")

    reasons = {each["measure"]: each["reason"] for each in json.loads(done.stdout)["not_run"]}
    for name in ("lift", "faithfulness", "certificate"):
        assert reasons[name].startswith("RESOURCE_EXHAUSTED: ")
    assert_no_text(done.stdout + done.stderr)


def test_rounded_answers_and_noised_scores_are_noticed(command, serve, scripted, file) -> None:
    scripted.noise = 1e-3

    done = command("audit", *asked(serve(scripted), "m", file), "--limit", "20", "--json")

    release = json.loads(done.stdout)["measures"]["release"]
    assert release["probability_digits"] == 2
    assert release["repeat_difference"] == pytest.approx(20e-3)  # 20 answers lie between the two


def test_ctrl_c_leaves_what_was_measured(command, serve, scripted, file, tmp_path) -> None:
    out = tmp_path / "audit.json"
    scripted.on_explain = lambda number: number == 5 and os.kill(os.getpid(), signal.SIGINT)

    done = command("audit", *asked(serve(scripted), "m", file), "--out", str(out), "--json")

    value = json.loads(out.read_text())
    assert done.code == 130
    assert value["interrupted"]
    assert value["measures"]["utility"]["n"] == 60
    assert value["measures"]["release"]["explanations"] in (4, 5)
    reasons = {each["measure"]: each["reason"] for each in value["not_run"]}
    assert reasons["counterfactual"] == reasons["faithfulness"] == "interrupted"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_figures_that_cannot_be_written_are_shown(command, serve, scripted, file, tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    scripted.on_explain = lambda number: folder.exists() and folder.rmdir()
    out = folder / "audit.json"

    done = command("audit", *asked(serve(scripted), "m", file), "--out", str(out), "--json")

    assert done.code == 2
    assert done.stderr.endswith(f"error: cannot write {out}: No such file or directory\n")
    assert json.loads(done.stdout)["measures"]["utility"]["n"] == 60


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", "x", [], "expected a file ending in .jsonl, .csv, .tsv"),
        ("a.jsonl", "", [], "expected at least one row"),
        ("a.jsonl", '{"text": "x", "label": "maybe"}', [], "a.jsonl: row 1: the label is none"),
        (
            "a.csv",
            "text,label\n" + "x,no\n" * 300 + "x,maybe\n",
            [],
            "a.csv: row 302: the label is none of no, yes",
        ),
        ("a.jsonl", '{"text": "x"}', ["--out", "/none/x"], "cannot write /none/x: No such"),
        ("a.jsonl", '{"text": "x"}', ["--model", "nobody"], "NOT_FOUND: unknown model"),
        ("a.jsonl", '{"text": "x"}', ["--token-file", "/none"], "cannot read /none"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(
    command, address, tmp_path, monkeypatch, name, content, options, message
) -> None:
    monkeypatch.setenv("ATTNPRIV_TOKEN", f"{TOKEN}open")
    (tmp_path / name).write_text(content)

    done = command("audit", *asked(address, "plain", tmp_path / name), *options)

    error = done.stderr.splitlines()[-1]
    assert (done.code, done.stdout) == (2, "")
    assert error.startswith("error: ")
    assert message in error


def test_who_is_not_known_is_told_so(command, address, file) -> None:
    done = command("audit", *asked(address, "plain", file))

    assert done.code == 2
    assert done.stderr.splitlines()[-1].startswith("error: UNAUTHENTICATED")

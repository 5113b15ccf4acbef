"""Certificates: what they are read from, what they refuse, and how the command shows them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch
from torch import nn

from attnpriv import cli
from attnpriv import guarantees as g
from attnpriv.attention import AttentionPooling, HardenedAttention, MultiHeadCrossAttention, harden
from attnpriv.certificate import LIMITS, HeadCertificate, certify, worst_case
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import load_run

VACUOUS = [field.name for field in fields(HeadCertificate)][8:-1]  # without a clip


def text_classifier(attention: AttentionConfig) -> TextClassifier:
    torch.manual_seed(0)
    shape = ModelConfig("scratch", 11, dim=12, layers=2, heads=3, hidden_dim=7, max_length=13,
                        num_labels=2, attention=attention)  # fmt: skip
    return TextClassifier(shape)


def test_every_head_of_every_layer_gets_the_formulas() -> None:
    heads = certify(text_classifier(AttentionConfig(2.0, 3.0, "norm")), 7, 2)
    assert [(head.module, head.layer, head.head) for head in heads] == [
        (f"blocks.{layer}.attention.core", layer, head) for layer in range(2) for head in range(3)
    ]
    assert {tuple(asdict(head).values())[3:] for head in heads} == {
        (
            3.0, 2.0, None, 7, 2,
            g.weight_bounds(3, 2, 7)[1], g.weight_bounds(3, 2, 7)[0],
            g.mass_bound(3, 2, 7, 2), g.lift_bound(3, 2, 7, 2),
            g.total_variation_bound(3, 2), g.single_logit_total_variation_bound(3, 2),
            g.selection_epsilon(3, 2, 7), g.selection_rho(3, 2),
            g.softmax_jacobian_bound(3, 2, 7),
        )
    }  # fmt: skip


def test_under_relative_one_logit_can_do_as_much_as_all() -> None:
    head = certify(text_classifier(AttentionConfig(2.0, 3.0, "relative")), 7, 2)[0]
    other = certify(text_classifier(AttentionConfig(2.0, 3.0, "clamp")), 7, 2)[0]

    assert head.single_logit_total_variation == head.total_variation == other.total_variation
    assert other.single_logit_total_variation < other.total_variation


@pytest.mark.parametrize("score", ["dot_product", "additive"])
def test_temperatures_are_read_off_the_trained_parameters(score: str) -> None:
    config = AttentionConfig(1.0, 2.0, "clamp", score, 0.4)  # type: ignore[arg-type]
    model = text_classifier(config)
    core = model.blocks[1].attention.core
    assert isinstance(core, HardenedAttention)
    assert core.raw_temperature is not None
    with torch.no_grad():
        core.raw_temperature.weight.copy_(torch.tensor([-1e4, 0.0, 5.0]))
    heads = certify(model, 7, 2)
    expected = [0.4, 0.4 + math.log(2), 0.4 + math.log1p(math.exp(5))]
    assert [head.temperature for head in heads[3:]] == pytest.approx(expected, rel=1e-6)
    assert heads[3].temperature >= 0.4
    assert all(head.temperature_floor == 0.4 for head in heads)
    for head in heads:
        assert head.mass_bound == g.mass_bound(2.0, head.temperature, 7, 2)
        assert head.mass_bound <= g.mass_bound(2.0, 0.4, 7, 2)
    assert worst_case(heads) == heads[3]
    copy = text_classifier(config)
    copy.load_state_dict(model.state_dict())
    assert certify(copy, 7, 2) == heads


def test_the_worst_case_has_the_loosest_bounds_and_unclipped_is_worse_than_all() -> None:
    clips = (0.5, 4.0, 2.0)
    layers = [HardenedAttention(AttentionConfig(1.5, clip), 2, 5) for clip in clips]
    heads = certify(nn.ModuleList(layers), 5, 3)
    worst = worst_case(heads)
    assert (worst.layer, worst.head, worst.logit_bound) == (1, 0, 4.0)
    for name in set(VACUOUS) - {"smallest_weight"}:
        assert getattr(worst, name) == max(getattr(head, name) for head in heads)
    assert worst.smallest_weight == min(head.smallest_weight or 1 for head in heads)
    layers.append(HardenedAttention(AttentionConfig(), 2, 5))
    assert worst_case(certify(nn.ModuleList(layers), 5, 3)).module == "3"


def test_layers_anywhere_in_any_module_are_found() -> None:
    config = AttentionConfig(1.0, 2.0)
    model = nn.ModuleDict(
        {
            "cross": MultiHeadCrossAttention(12, 3, config),
            "plain": nn.MultiheadAttention(12, 3),
            "pool": AttentionPooling(12, 2, config),
        }
    )
    found = [(head.module, head.layer, head.head) for head in certify(model, 3, 1)]
    assert found == [("cross.core", 0, 0), ("cross.core", 0, 1), ("cross.core", 0, 2),
                     ("pool.core", 1, 0), ("pool.core", 1, 1)]  # fmt: skip
    hardened = harden(nn.TransformerEncoderLayer(12, 3, 7), AttentionConfig(1.0, 2.0, "norm"))
    assert len(certify(hardened, 3, 1)) == 3
    assert certify(model["pool"].core, 3, 1)[0].module == ""


def test_without_a_clip_only_the_jacobian_is_bounded() -> None:
    (head,) = certify(HardenedAttention(AttentionConfig(2.0), 1, 5), 7, 2)
    assert head.logit_bound is None
    assert {getattr(head, name) for name in VACUOUS} == {None}
    assert head.softmax_jacobian == 0.25


@pytest.mark.parametrize(("c", "tau"), [(1e308, 1e-10), (1e9, 1e-9), (1e-300, 1e300)])
def test_extreme_configurations_give_no_infinity(c: float, tau: float) -> None:
    for head in certify(HardenedAttention(AttentionConfig(tau, c), 1, 5), 7, 2):
        assert json.loads(json.dumps(asdict(head), allow_nan=False)) == asdict(head)


@pytest.mark.parametrize(
    ("keys", "sensitive", "named"),
    [
        (0, 0, "keys to be a whole number from 1 to 1000000000, got 0"),
        (-3, 1, "keys to be a whole number from 1 to 1000000000, got -3"),
        (7, 0, "[1, 7], got 0"),
        (7, 8, "[1, 7], got 8"),
    ],
)
def test_numbers_out_of_range_are_refused(keys: int, sensitive: int, named: str) -> None:
    with pytest.raises(InputError) as error:
        certify(HardenedAttention(AttentionConfig(), 1, 5), keys, sensitive)
    assert named in str(error.value)


def test_a_model_without_hardened_attention_is_refused() -> None:
    with pytest.raises(InputError, match="hardened attention, got MultiheadAttention"):
        certify(nn.MultiheadAttention(12, 3), 7, 2)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_temperatures_that_are_not_finite_are_refused(broken: float) -> None:
    model = text_classifier(AttentionConfig(1.0, 2.0, temperature_floor=0.5))
    core = model.blocks[1].attention.core
    assert isinstance(core, HardenedAttention)
    assert core.raw_temperature is not None
    with torch.no_grad():
        core.raw_temperature.weight[2] = broken
    with pytest.raises(InputError, match=r"finite temperatures in 'blocks.1.attention.core'"):
        certify(model, 7, 2)


def test_a_trained_run_keeps_its_certificate(private_run: Path) -> None:
    run = load_run(private_run)
    ids, mask = torch.randint(5, 50, (11, 13)), torch.ones(11, 13, dtype=torch.bool)
    with torch.inference_mode():
        weights = run.model.run(run.model.embed(ids), mask, need_maps=True).self_attention()
    for head in certify(run.model, 13, 3):
        rows = weights[head.layer][:, head.head]
        assert head.largest_weight is not None
        assert head.mass_bound is not None
        assert rows.max() <= head.largest_weight * (1 + 1e-5)
        assert rows[..., :3].sum(-1).max() <= head.mass_bound * (1 + 1e-5)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call ``attnpriv certify`` in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attnpriv", "certify", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
            sys.exit(0)
        return int(exit_.value.code or 0), *capsys.readouterr()

    return call


def test_the_command_prints_bounds_rounded_up_and_their_limits(
    command: Command, private_run: Path
) -> None:
    code, out, err = command(private_run)
    assert (code, err) == (0, "")
    heads = certify(load_run(private_run).model, 32, 4)
    rows = [line.strip("│").split("│") for line in out.splitlines() if line.startswith("│")]
    assert len(rows) == len(heads) + 1
    for row, head in zip(rows, (*heads, worst_case(heads)), strict=True):
        cells = [cell.strip() for cell in row]
        assert cells[0] in (str(head.layer), "worst")
        assert cells[2:4] == ["2", "2"]
        assert cells[4:] == ["0.1925", "0.5136", "4.11", "0.7616", "3.791"]
        bounds = (head.largest_weight, head.mass_bound, head.lift_bound,
                  head.total_variation, head.selection_epsilon)  # fmt: skip
        assert all(
            float(cell) >= (bound or 9) for cell, bound in zip(cells[4:], bounds, strict=True)
        )
    assert all(limit in out for limit in LIMITS)
    assert "NO CERTIFICATE" not in out


def test_the_command_prints_json_for_machines(command: Command, private_run: Path) -> None:
    code, out, _ = command(private_run, "--keys", 17, "--sensitive", 3, "--json")
    heads = certify(load_run(private_run).model, 17, 3)
    assert code == 0
    assert json.loads(out) == {
        "run": "private",
        "keys": 17,
        "sensitive": 3,
        "worst": asdict(worst_case(heads)),
        "heads": [asdict(head) for head in heads],
        "limits": list(LIMITS),
    }


def test_an_unclipped_run_is_said_to_have_no_certificate(command: Command, tiny_run: Path) -> None:
    code, out, _ = command(tiny_run)
    assert code == 0
    assert "NO CERTIFICATE HOLDS" in out
    assert LIMITS[0] in out
    code, out, _ = command(tiny_run, "--json")
    worst = json.loads(out)["worst"]
    assert code == 0
    assert {worst[name] for name in ("logit_bound", *VACUOUS)} == {None}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--keys", 0], "expected keys to be a whole number from 1 to 1000000000, got 0"),
        (["--keys", 3], "expected sensitive in [1, 3], got 4"),
        (["--sensitive", 33], "expected sensitive in [1, 32], got 33"),
    ],
)
def test_bad_numbers_are_one_line_and_exit_code_2(
    command: Command, private_run: Path, options: list[object], named: str
) -> None:
    assert command(private_run, *options) == (2, "", f"error: {named}\n")


def test_a_missing_run_is_refused(command: Command, tmp_path: Path) -> None:
    code, out, err = command(tmp_path / "none")
    assert (code, out) == (2, "")
    assert err.startswith("error: expected a run folder")

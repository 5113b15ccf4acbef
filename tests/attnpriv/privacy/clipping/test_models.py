"""Clipped sums of the models that we ship, against a loop over the records and against Opacus."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import AttentionPooling, MultiHeadCrossAttention
from attnpriv.config import CNNS, AttentionConfig, ModelConfig
from attnpriv.detection import DETECT
from attnpriv.errors import InputError
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.detector import DetectorModel
from attnpriv.models.shapes import CnnConfig, DetectorConfig, VisionConfig
from attnpriv.models.text import TextClassifier
from attnpriv.models.vision import VisionClassifier
from attnpriv.privacy.clipping import clip_factors, make_engine

RECORDS = 7
TINY = ModelConfig(
    encoder="scratch",
    vocab_size=23,
    dim=12,
    layers=3,
    heads=3,
    hidden_dim=7,
    max_length=13,
    num_labels=5,
)
PLAIN = AttentionConfig()
LEARNED = AttentionConfig(2.0, 1.0, "norm", "additive", temperature_floor=0.5)
ATTENTIONS = [
    AttentionConfig(2.0, clip, mode, score, floor)
    for clip, mode in (
        (None, "clamp"),
        (1.0, "clamp"),
        (1.0, "tanh"),
        (1.0, "norm"),
        (1.0, "relative"),
    )
    for score in ("dot_product", "additive")
    for floor in (None, 0.5)
]
TRAINABLE = ["head", "bias", "last:1", "last:2", "lora:2", "lora:2:last:1", "all"]


def make_model(trainable: str, attention: AttentionConfig = PLAIN, **shape: Any) -> TextClassifier:
    torch.manual_seed(0)
    model = TextClassifier(replace(TINY, attention=attention, **shape))
    model.select_trainable(trainable)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:  # far from uniform attention, and no adapter without effect
            nn.init.normal_(parameter, std=0.3 if "words" not in name else 1.0)
    return model


def text_losses(module: nn.Module, rows: slice) -> Tensor:
    """Cross-entropy of texts of 2 to 11 tokens, padded to 11."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 23, (RECORDS, 11), generator=generator)
    mask = torch.arange(11) < torch.randint(2, 12, (RECORDS, 1), generator=generator)
    labels = torch.randint(0, 5, (RECORDS,), generator=generator)
    return F.cross_entropy(module(ids[rows], mask[rows]), labels[rows], reduction="none")


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_every_attention(reference: Any, attention: AttentionConfig) -> None:
    reference.assert_equals_loop(make_model("all", attention), text_losses, RECORDS)


@pytest.mark.every_value
@pytest.mark.parametrize("trainable", TRAINABLE)
@pytest.mark.parametrize("attention", [PLAIN, LEARNED], ids=["plain", "learned"])
def test_every_part_that_can_be_trained(
    reference: Any, trainable: str, attention: AttentionConfig
) -> None:
    reference.assert_equals_loop(make_model(trainable, attention), text_losses, RECORDS)


@pytest.mark.every_value
@pytest.mark.parametrize("trainable", ["head", "last:2", "all"])
@pytest.mark.parametrize("pooling", ["cls", "layers"])
def test_every_pooling(reference: Any, trainable: str, pooling: str) -> None:
    model = make_model(trainable, LEARNED, pooling=pooling)
    reference.assert_equals_loop(model, text_losses, RECORDS)


@pytest.mark.every_value
@pytest.mark.parametrize("trainable", ["head", "bias", "lora:2", "all"])
@pytest.mark.parametrize("attention", [PLAIN, LEARNED], ids=["plain", "learned"])
def test_a_block_that_is_applied_three_times(
    reference: Any, trainable: str, attention: AttentionConfig
) -> None:
    model = make_model(trainable, attention, share_layers=True, pooling="layers")
    reference.assert_equals_loop(model, text_losses, RECORDS, cuts=(0, 2, RECORDS))


@pytest.mark.parametrize("trainable", ["last:2", "lora:2", "all"])
def test_the_shape_of_minilm(reference: Any, trainable: str) -> None:
    shape = {"layers": 6, "heads": 12, "dim": 24, "hidden_dim": 96, "pooling": "layers"}
    attention = AttentionConfig(2.0, 2.0, "norm")
    model = make_model(trainable, attention, norm_eps=1e-12, **shape)
    reference.assert_equals_loop(model, text_losses, RECORDS)


@pytest.mark.every_value
@pytest.mark.parametrize("trainable", ["head", "bias", "last:1", "lora:2", "all"])
@pytest.mark.parametrize("attention", [PLAIN, LEARNED], ids=["plain", "learned"])
def test_the_vision_transformer(reference: Any, trainable: str, attention: AttentionConfig) -> None:
    torch.manual_seed(0)
    shape = VisionConfig(
        height=5,
        width=7,
        channels=3,
        patch=2,
        num_labels=5,
        dim=12,
        layers=3,
        heads=3,
        hidden_dim=7,
    )
    model = VisionClassifier(replace(shape, attention=attention))
    model.select_trainable(trainable)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    pixels, labels = torch.rand(RECORDS, 12, 12), torch.arange(RECORDS) % 5
    mask = torch.ones(RECORDS, 12, dtype=torch.bool)

    def losses(module: nn.Module, rows: slice) -> Tensor:
        return F.cross_entropy(module(pixels[rows], mask[rows]), labels[rows], reduction="none")

    reference.assert_equals_loop(model, losses, RECORDS, cuts=(0, 2, RECORDS))


@pytest.mark.parametrize("trainable", ["head", "bias", "all"])
@pytest.mark.parametrize("encoder", list(CNNS))
def test_the_convolutional_network(reference: Any, trainable: str, encoder: str) -> None:
    """Every layer of it: convolutions, group norms and gates, whose linear layers run twice."""
    torch.manual_seed(0)
    clipped = AttentionConfig(clip=2.0, clip_mode="tanh")
    shape = {"height": 5, "width": 7, "channels": 3, "patch": 1, "num_labels": 5}
    model = CnnClassifier(CnnConfig(encoder=encoder, dim=12, groups=3, attention=clipped, **shape))
    nn.init.normal_(model.head.weight)
    model.select_trainable(trainable)
    pixels, labels = torch.rand(RECORDS, 35, 3), torch.arange(RECORDS) % 5
    mask = torch.ones(RECORDS, 35, dtype=torch.bool)

    def losses(module: nn.Module, rows: slice) -> Tensor:
        return F.cross_entropy(module(pixels[rows], mask[rows]), labels[rows], reduction="none")

    reference.assert_equals_loop(model, losses, RECORDS, cuts=(0, 2, RECORDS))


@pytest.mark.parametrize("attention", [PLAIN, LEARNED], ids=["plain", "learned"])
def test_cross_attention_and_pooling(reference: Any, attention: AttentionConfig) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cross = MultiHeadCrossAttention(6, 2, attention, context_dim=5)
            self.pooling = AttentionPooling(6, 3, attention)

        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            return self.pooling(x + self.cross(x, context, None)[0], None)[0]

    torch.manual_seed(0)
    x, context, target = (torch.randn(RECORDS, *s) for s in ((3, 6), (7, 5), (6,)))

    def losses(module: nn.Module, rows: slice) -> Tensor:
        return (module(x[rows], context[rows]) - target[rows]).square().sum(1)

    reference.assert_equals_loop(Reader(), losses, RECORDS)


@pytest.mark.parametrize("cuts", [(0, 1, 2, 3, 4, 5, 6, 7), (0, 6, 7)])
@pytest.mark.parametrize("share_layers", [False, True])
def test_micro_batches_may_be_cut_anywhere(
    reference: Any, cuts: tuple[int, ...], share_layers: bool
) -> None:
    model = make_model("all", LEARNED, share_layers=share_layers)
    reference.assert_equals_loop(model, text_losses, RECORDS, cuts=cuts)


@pytest.mark.parametrize("clip", [0.1, 1.0, 7.0])
def test_automatic_clipping_by_its_formula(reference: Any, clip: float) -> None:
    model = make_model("all")
    measured = reference.by_books(
        model, text_losses, (0, RECORDS), lambda norms: clip_factors(norms, clip, "automatic")
    )
    reference.assert_equals_sum(
        measured, model, text_losses, RECORDS, lambda norms: clip / (norms + 0.01), clip
    )


def test_clip_factors_of_all_norms() -> None:
    norms = torch.tensor([0.0, 0.5, 1.0, 4.0, torch.inf, torch.nan])
    torch.testing.assert_close(
        clip_factors(norms, 2.0, "flat"),
        torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0, torch.nan]),
        equal_nan=True,
    )
    torch.testing.assert_close(
        clip_factors(norms, 2.0, "automatic"),
        torch.tensor([200.0, 2 / 0.51, 2 / 1.01, 2 / 4.01, 0.0, torch.nan]),
        equal_nan=True,
    )


def norms_by_opacus(kind: str, model: nn.Module) -> Tensor:
    wrap = {
        "hooks": lambda: GradSampleModule(model, loss_reduction="sum"),
        "ghost": lambda: GradSampleModuleFastGradientClipping(
            model, loss_reduction="sum", use_ghost_clipping=True
        ),
    }[kind]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        module = wrap()
        text_losses(module, slice(None)).sum().backward()
    if kind == "ghost":
        norms: Tensor = module.get_norm_sample().view(-1)
    else:
        samples = [p.grad_sample for p in model.parameters() if p.requires_grad]
        norms = torch.cat([sample.flatten(1) for sample in samples], dim=1).norm(dim=1)
    module.to_standard_module()
    return norms.double()


@pytest.mark.every_pair
@pytest.mark.parametrize("kind", ["hooks", "ghost"])
@pytest.mark.parametrize("trainable", TRAINABLE)
@pytest.mark.parametrize("attention", [PLAIN, LEARNED], ids=["plain", "learned"])
def test_norms_are_those_of_opacus(
    reference: Any, kind: str, trainable: str, attention: AttentionConfig
) -> None:
    model = make_model(trainable, attention)
    ours = reference.by_books(model, text_losses, (0, RECORDS), reference.flat(1.0)).norms
    torch.testing.assert_close(ours, norms_by_opacus(kind, model), rtol=1e-5, atol=0)


def sum_by_engine(
    engine: Any, model: nn.Module, clipping: Any, cuts: tuple[int, ...]
) -> SimpleNamespace:
    made = make_engine(engine, model, 0.5, clipping)
    totals = {p: torch.zeros_like(p) for p in model.parameters() if p.requires_grad}
    for start, stop in pairwise(cuts):
        made.accumulate(text_losses(made.module, slice(start, stop)), totals)
    made.close()
    total = torch.cat([total.flatten() for total in totals.values()])
    return SimpleNamespace(total=total.double())


@pytest.mark.every_pair
@pytest.mark.parametrize("engine", ["hooks", "ghost"])
@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("trainable", ["bias", "lora:2", "all"])
def test_the_engines_agree(reference: Any, engine: Any, clipping: Any, trainable: str) -> None:
    model = make_model(trainable, LEARNED)
    total = sum_by_engine(engine, model, clipping, (0, 3, RECORDS))
    reference.assert_equals_sum(
        total, model, text_losses, RECORDS, lambda norms: clip_factors(norms, 0.5, clipping), 0.5
    )


def test_hooks_can_share_layers_and_ghost_says_that_it_cannot(reference: Any) -> None:
    model = make_model("all", share_layers=True)
    total = sum_by_engine("hooks", model, "flat", (0, RECORDS))
    reference.assert_equals_sum(total, model, text_losses, RECORDS, reference.flat(0.5), 0.5)
    ghost = make_engine("ghost", model, 0.5, "flat")
    with pytest.raises(InputError, match="take the clipping engine book_keeping or hooks"):
        text_losses(ghost.module, slice(None))


def test_the_detector(reference: Any) -> None:
    """Convolutions, blocks, queries that attend to cells, and a loss of matched objects.

    The gradients of an image are those that it has alone, whatever its neighbours hold.
    """
    torch.manual_seed(0)
    model = DetectorModel(
        DetectorConfig(
            height=8,
            width=12,
            channels=1,
            patch=2,
            num_labels=3,
            dim=12,
            heads=3,
            hidden_dim=7,
            groups=3,
            attention=AttentionConfig(clip=2.0, clip_mode="tanh"),
        )
    )
    model.select_trainable("all")
    pixels = torch.rand(RECORDS, 24, 4)
    mask = torch.ones(RECORDS, 24, dtype=torch.bool)
    boxes = 0.25 + torch.rand(RECORDS, 3, 4) / 2
    classes = torch.randint(0, 3, (RECORDS, 3, 1)).float()
    # From none to three objects in an image.
    there = torch.arange(3)[None, :, None] < (torch.arange(RECORDS) % 4)[:, None, None]
    targets = torch.where(there, torch.cat([classes, boxes], -1), -1.0)

    def losses(module: nn.Module, rows: slice) -> Tensor:
        return DETECT.losses(module(pixels[rows], mask[rows]), targets[rows])

    reference.assert_equals_loop(model, losses, RECORDS, cuts=(0, 2, RECORDS))

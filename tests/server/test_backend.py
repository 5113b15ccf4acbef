"""The backends against the run's own model, each other, and the certificates.

Shapes: B batch, T tokens, H heads, K classes.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnpriv.attention import MultiHeadSelfAttention
from attnpriv.certificate import certify
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.data.text import Text, pad_batch
from attnpriv.data.tokenisation import Encoding, HashTokenizer
from attnpriv.errors import InputError
from attnpriv.models.classifier import batches_by_length, pooled_features
from attnpriv.models.pretrained import encoder_folder, load_pretrained
from attnpriv.models.text import TextClassifier, pack_batch
from attnpriv.runs.folder import Run
from attnpriv_server.backend import EagerBackend, make_backend
from attnpriv_server.domain import Precision

CPU = torch.cpu.get_capabilities()
# What oneDNN may take: what the CPU has, unless the environment has it behave as an older one.
OLDER = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in {"SSE41", "AVX", "AVX2", "AVX2_VNNI"}
WITHOUT_AVX512 = CPU["architecture"] == "x86_64" and (OLDER or not CPU["avx512_f"])
PRECISIONS: list[Precision] = ["float32", "bfloat16"]
# Of a probability: a float32 sum in another order, or one bfloat16 number that fell the other way.
ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2}
BIASED = AttentionConfig(clip=1.5)  # of a model with relative positions
ATTENTION = {
    "plain": AttentionConfig(),
    "biased": BIASED,
    "clamp": AttentionConfig(clip=0.97),
    "tanh": AttentionConfig(clip=2.0, clip_mode="tanh"),
    "relative": AttentionConfig(clip=0.97, clip_mode="relative"),
    "norm": AttentionConfig(temperature=2.0, clip=4.0, clip_mode="norm"),
    "learned": AttentionConfig(temperature=1.5, clip=2.0, temperature_floor=0.5),
}
HARDENED = [name for name in ATTENTION if name != "plain"]


def run_of(attention: AttentionConfig, heads: int = 7, share_layers: bool = False) -> Run:
    """A run with random weights and without files; large enough to use each kernel in earnest."""
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=97,
        dim=7 * 16,
        layers=3,
        heads=heads,
        hidden_dim=224,
        max_length=67,
        num_labels=5,
        pooling="layers",
        attention=attention,
        share_layers=share_layers,
        relative_positions=attention is BIASED,
    )
    model = TextClassifier(config)
    nn.init.normal_(model.head.weight)
    for bias in model.buffers():
        nn.init.normal_(bias)
    for layer in attentions(model):
        if layer.core.raw_temperature is not None:
            nn.init.normal_(layer.core.raw_temperature.weight)
    model.requires_grad_(False).eval()
    text = Text(HashTokenizer(97), model.config.max_length)
    return Run(Path(), "run", model, text, tuple("abcde"), {}, {})


def attentions(model: TextClassifier) -> list[MultiHeadSelfAttention]:
    """Of every block."""
    return [module for module in model.modules() if isinstance(module, MultiHeadSelfAttention)]


def prepared(run: Run, precision: Precision) -> EagerBackend:
    backend = make_backend(run, precision)
    assert isinstance(backend, EagerBackend)
    return backend


def random_batch(B: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
    """Texts of all lengths up to T, one of them of T."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    lengths[seed % B] = T
    mask = torch.arange(T) < lengths[:, None]
    return torch.randint(3, 97, (B, T), generator=generator) * mask, mask


# --- what a backend is --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENTION)
def test_float32_gives_the_bits_of_the_model_and_holds_nothing(name: str) -> None:
    run = run_of(ATTENTION[name])
    backend, (ids, mask) = prepared(run, "float32"), random_batch(5, 13, 0)

    found = backend.probabilities(ids, mask)

    assert np.array_equal(found, torch.softmax(run.model(ids, mask), -1).numpy())
    assert backend.memory_bytes == 0
    assert backend.model is run.model


@pytest.mark.parametrize("name", ATTENTION)
def test_bfloat16_is_near_float32(name: str) -> None:
    run, (ids, mask) = run_of(ATTENTION[name]), random_batch(11, 13, 0)

    exact, rounded = (make_backend(run, each).probabilities(ids, mask) for each in PRECISIONS)

    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded.sum(-1), 1.0, atol=1e-6)
    assert 0 < np.abs(rounded - exact).max() < 0.02


@pytest.mark.parametrize("share_layers", [False, True])
def test_bfloat16_copies_the_blocks_and_leaves_the_run_as_it_is(share_layers: bool) -> None:
    run = run_of(ATTENTION["plain"], share_layers=share_layers)
    before = copy.deepcopy(run.model.state_dict())

    backend = prepared(run, "bfloat16")
    backend.probabilities(*random_batch(3, 5, 0))

    after = run.model.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert backend.memory_bytes == sum(2 * p.numel() for p in run.model.blocks.parameters())
    assert backend.model.words is run.model.words
    assert backend.model.head is run.model.head


@pytest.mark.skipif(WITHOUT_AVX512, reason="oneDNN has no bfloat16 on this CPU")
@pytest.mark.parametrize("tokens", [1, 2, 13, 64])
def test_weights_that_were_laid_out_give_the_bits_of_those_that_were_not(tokens: int) -> None:
    run = run_of(ATTENTION["plain"])
    ours = attentions(prepared(run, "bfloat16").model)
    linear = copy.deepcopy(attentions(run.model)[0].qkv).to(torch.bfloat16)
    assert not isinstance(ours[0].qkv, nn.Linear), "this processor's kernels have no layout"
    for shape in ((tokens,), (3, tokens)):
        x = torch.randn(*shape, linear.in_features, dtype=torch.bfloat16)
        assert ours[0].qkv(x).equal(linear(x))


def test_bfloat16_is_served_where_weights_cannot_be_laid_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU without AVX-512, or a build without oneDNN: slower, with the same bits."""
    run, batch = run_of(ATTENTION["clamp"]), random_batch(3, 9, 0)
    usual = prepared(run, "bfloat16").probabilities(*batch)
    monkeypatch.setattr("attnpriv_server.backend.can_lay_out_weights", lambda: False)
    backend = prepared(run, "bfloat16")
    assert isinstance(attentions(backend.model)[0].qkv, nn.Linear)
    assert np.array_equal(backend.probabilities(*batch), usual)


@pytest.mark.every_value
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ATTENTION)
def test_threads_at_once_get_the_bits_of_one(name: str, precision: Precision) -> None:
    backend = prepared(run_of(ATTENTION[name]), precision)
    batches = [random_batch(1 + seed % 5, 7 + seed, seed) for seed in range(24)]
    alone = [backend.probabilities(*batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = threads.map(lambda batch: backend.probabilities(*batch), batches * 4)
    for expected, found in zip(alone * 4, together, strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"architecture": "x86_64", "avx512_f": False, "amx_bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64", "bf16": True}, torch.bfloat16),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    assert prepared(run_of(ATTENTION["plain"]), "auto").dtype == dtype


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_longer_sequence_than_the_model_has_positions_for_is_refused(
    precision: Precision,
) -> None:
    backend = make_backend(run_of(ATTENTION["plain"]), precision)

    with pytest.raises(InputError, match="expected at most 67 tokens, got 68"):
        backend.probabilities(*random_batch(2, 68, 0))
    with pytest.raises(InputError, match="expected at most 67 tokens, got 68"):
        backend.probabilities(*pack_batch(texts_of((5, 68, 60), 0), 0))


# --- neighbours ---------------------------------------------------------------------------------


@pytest.mark.every_pair
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize(("B", "T"), [(2, 3), (5, 17), (16, 32), (33, 7), (3, 61)])
def test_what_the_neighbours_are_changes_no_bit(
    B: int, T: int, name: str, precision: Precision
) -> None:
    """Neither their tokens nor their lengths, nor whether anything at all is padded."""
    backend, (ids, mask) = make_backend(run_of(ATTENTION[name]), precision), random_batch(B, T, 0)
    expected = backend.probabilities(ids, mask)
    for row, seed in itertools.product({0, B // 2, B - 1}, (1, 2, 3)):
        others, other_mask = random_batch(B, T, seed)
        other_mask = other_mask | (seed == 3)
        others[row], other_mask[row] = ids[row], mask[row]

        found = backend.probabilities(others, other_mask)

        assert np.array_equal(found[row], expected[row])


@pytest.mark.every_pair
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize(("B", "T"), [(5, 17), (16, 32)])
def test_the_place_in_the_batch_changes_a_rounding_at_most(
    B: int, T: int, name: str, precision: Precision
) -> None:
    """A vectorised loop ends in a scalar one, which rounds the last row's numbers differently."""
    backend, (ids, mask) = make_backend(run_of(ATTENTION[name]), precision), random_batch(B, T, 0)
    expected = backend.probabilities(ids, mask)
    slack = ROUNDING[precision]
    for shift in (1, B // 2, B - 1):
        found = backend.probabilities(ids.roll(shift, 0), mask.roll(shift, 0))

        np.testing.assert_allclose(np.roll(found, -shift, 0), expected, rtol=0, atol=slack)


@pytest.mark.every_pair
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("lengths", [(3, 1), (17, 5, 9, 17, 2), (40, 7, 7, 31, 8, 66), (1,)])
def test_packed_texts_get_the_answers_of_padded_ones(
    lengths: tuple[int, ...], name: str, precision: Precision
) -> None:
    backend, encodings = make_backend(run_of(ATTENTION[name]), precision), texts_of(lengths, 0)

    found = backend.probabilities(*pack_batch(encodings, 0))

    expected = backend.probabilities(*pad_batch(encodings, 0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING[precision])


@pytest.mark.every_pair
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("lengths", [(17, 5, 9, 17, 2), (40, 7, 7, 31, 8, 66)])
def test_what_is_packed_beside_a_text_changes_no_bit(
    lengths: tuple[int, ...], name: str, precision: Precision
) -> None:
    backend, encodings = make_backend(run_of(ATTENTION[name]), precision), texts_of(lengths, 0)
    expected = backend.probabilities(*pack_batch(encodings, 0))
    for row, seed in itertools.product(range(len(lengths)), (1, 2)):
        others = texts_of(lengths, seed)
        others[row] = encodings[row]

        found = backend.probabilities(*pack_batch(others, 0))

        assert np.array_equal(found[row], expected[row])


def texts_of(lengths: Sequence[int], seed: int) -> list[Encoding]:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]
    return [Encoding(tuple(each), ((0, 0),) * len(each)) for each in ids]


# --- certificates -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", HARDENED)
def test_the_largest_weight_keeps_the_certified_bound(name: str, precision: Precision) -> None:
    """With projections so large that every logit meets the clip.

    Heads of width 1 have logits of ±c under ``norm`` too, so that the bound is nearly attained.
    """
    T, run = 5, run_of(ATTENTION[name], heads=7 * 16)
    for layer in attentions(run.model):
        layer.qkv.weight.mul_(1e4)
    bounds = [c.largest_weight for c in certify(run.model, keys=T, sensitive=1)]
    bound = torch.tensor(bounds, dtype=torch.float64).view(3, -1)
    backend, (ids, _) = prepared(run, precision), random_batch(31, T, 0)

    for weights in weights_of(backend, ids):
        found = weights.double().amax((1, 3, 4))  # of each layer and head
        assert (found <= bound * slack(precision, ATTENTION[name], T)).all()
        assert (found >= 0.98 * bound).float().mean() > 0.75


def weights_of(backend: EagerBackend, ids: Tensor) -> list[Tensor]:
    """The weights of every layer as they are returned, and as the outputs show them.

    The second are those of the kernel that answers: given one-hot values, it puts out its weights.
    Both are [L, B, H, T, T].
    """
    T, model = ids.shape[1], backend.model
    mask, shown = torch.ones_like(ids, dtype=torch.bool), []

    def show(core: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        q, k = inputs[:2]
        one_hot = torch.eye(T, dtype=q.dtype).expand(*q.shape[:2], T, T)
        shown.append(core.forward(q, k, one_hot, mask)[0])

    hooks = [layer.core.register_forward_pre_hook(show) for layer in attentions(model)]
    _, returned = model.encode(backend.embed(ids, mask), mask, need_weights=True)
    for hook in hooks:
        hook.remove()
    assert returned is not None
    return [torch.stack(returned), torch.stack(shown)]


def slack(precision: Precision, attention: AttentionConfig, keys: int) -> float:
    """Factor on a weight from rounding, as docs/guarantees.md states it, for heads of width 1."""
    x = 2 * attention.logit_bound / attention.smallest_temperature
    factor = math.exp((5 * x + keys + 44) * torch.finfo(torch.float32).eps)
    if precision == "float32":
        return factor
    u = torch.finfo(torch.bfloat16).eps / 2
    return factor * (1 + u) ** 2 / (1 - u)


def test_learned_temperatures_stay_those_of_the_certificate() -> None:
    run = run_of(ATTENTION["learned"])

    assert prepared(run, "bfloat16").model.temperatures() == run.model.temperatures()


# --- a trained MiniLM on real messages -----------------------------------------------------------


@pytest.mark.exhaustive
def test_bfloat16_keeps_the_labels_of_real_messages(shared_data: Path) -> None:
    """All but a few that float32 leaves undecided: only differences below 0.04 can turn."""
    encodings, spam = real_messages(shared_data)
    model = load_pretrained(encoder_folder("minilm"), 2, ATTENTION["clamp"])
    model.requires_grad_(False).eval()
    features = pooled_features(model, Text(HashTokenizer(), 64), encodings)
    fit_head(model, features[:300], spam[:300])
    exact = torch.softmax(model.head(features), -1).numpy()
    backend, rounded = EagerBackend(model, torch.bfloat16), np.empty_like(exact)

    for rows in batches_by_length(encodings, 32):
        rounded[rows] = backend.probabilities(*pack_batch([encodings[row] for row in rows], 0))

    right = exact.argmax(-1) == (spam.numpy() > 0)
    assert right.mean() > 0.93  # so that the labels mean something
    assert np.abs(rounded - exact).max() < 0.02
    assert (rounded.argmax(-1) != exact.argmax(-1)).sum() <= 3


def real_messages(folder: Path) -> tuple[list[Encoding], Tensor]:
    """The first 1,000, cut to 16 tokens for time; 1 for spam and -1 for ham."""
    lines = (folder / "sms_spam.tsv").read_text(encoding="utf-8").split("\n")[:1000]
    labels, texts = zip(*(line.split("\t", 1) for line in lines), strict=True)
    tokenizer = PretrainedTokenizer.from_file(encoder_folder("minilm") / "tokenizer.json")
    spam = torch.tensor([1.0 if label == "spam" else -1.0 for label in labels])
    return tokenizer.encode_batch(texts, 16), spam


def fit_head(model: TextClassifier, features: Tensor, spam: Tensor) -> None:
    """Least squares with a little ridge, to logits that differ by 4: probabilities of 0.98."""
    gram = features.T @ features + 0.01 * torch.eye(features.shape[1])
    direction = torch.linalg.solve(gram, features.T @ (2 * spam))
    model.head.weight.copy_(torch.stack([-direction, direction]))

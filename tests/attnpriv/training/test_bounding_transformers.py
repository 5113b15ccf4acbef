"""Bounding encoders that only ``transformers`` runs: ELECTRA, ALBERT, ModernBERT and others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F

from attnpriv.attention import harden
from attnpriv.attention.drop_in.families import ENCODERS
from attnpriv.config import AttentionConfig, BoundingConfig
from attnpriv.errors import InputError
from attnpriv.models.layouts import FAMILIES
from attnpriv.training import bound_encoder
from attnpriv.training.bounding import Texts
from tests.attnpriv.attention.finished_models import within_bounds
from tests.attnpriv.data.trained_tokenizers import byte_pairs, unigram
from tests.attnpriv.models.encoders import (
    family_encoder,
    letters_tokenizer,
    lines_of_letters,
    random_encoder,
)

transformers = pytest.importorskip("transformers")

CLIP = 0.5
ATTENTION = AttentionConfig(clip=CLIP)
CONFIG = BoundingConfig(steps=12, batch_tokens=400, learning_rate=3e-3, max_length=24)
FREQUENT = ("albert", "electra", "modernbert")
KINDS = [
    pytest.param(kind, marks=() if kind in FREQUENT else pytest.mark.exhaustive)
    for kind in ENCODERS
]
Bounds = Callable[..., Any]


@pytest.fixture
def bounds(tmp_path: Path) -> Bounds:
    """Writes a random encoder to ``KIND``, if there is none, and a bounded copy to ``calm``."""
    texts = tmp_path / "public.txt"
    texts.write_text("\n".join(lines_of_letters()), encoding="utf-8")

    def run(kind: str, out: str = "calm", dtype: torch.dtype = torch.float32, **change: Any) -> Any:
        auto = change.pop("auto", "AutoModel")
        options = {"attention": ATTENTION, "config": CONFIG, **change}
        folder = tmp_path / kind
        if not folder.exists():
            family_encoder(kind, folder, auto).to(dtype).save_pretrained(folder)
            letters_tokenizer(folder)
        return bound_encoder(str(folder), [texts], tmp_path / out, **options)

    return run


def clamped(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Clamped attention once more, from the formula."""
    logits = (q @ k.transpose(-1, -2) * scaling).clamp(-CLIP, CLIP)
    weights = (logits if mask is None else logits + mask).softmax(-1)
    return (weights @ v).transpose(1, 2).contiguous(), weights


def distance(folder: Path, made: Path, texts: Path) -> tuple[float, float]:
    """The loss and the cosine distance by transformers alone, text by text, without padding."""
    from transformers.masking_utils import eager_mask

    transformers.AttentionMaskInterface.register("clamped", eager_mask)
    transformers.AttentionInterface.register("clamped", clamped)
    load = transformers.AutoModel.from_pretrained
    theirs = load(folder, attn_implementation="eager", dtype=torch.float32)
    ours = load(made, attn_implementation="clamped", dtype=torch.float32)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(made / "tokenizer.json"))
    lines = list(dict.fromkeys(texts.read_text().splitlines()))
    encodings = tokenizer(lines, truncation=True, max_length=24)["input_ids"]
    ids = [np.array(each, dtype=np.int32) for each in encodings]
    layers = ours.config.num_hidden_layers
    pooled = sorted({-(-layers // 3), -(-2 * layers // 3), layers})
    squares, tokens, cosines, whole = 0.0, 0, [], []
    for row in np.concatenate(Texts(ids, 0, CONFIG).held_out()):
        text = {"input_ids": torch.from_numpy(ids[row]).long()[None], "output_hidden_states": True}
        with torch.no_grad():
            a, b = ours(**text).hidden_states, theirs(**text).hidden_states
        squares += sum(
            float((x - y).square().mean(-1).sum()) for x, y in zip(a[1:], b[1:], strict=True)
        )
        tokens += len(ids[row])
        vectors = [torch.stack([states[i].mean(1)[0] for i in pooled]) for states in (a, b)]
        cosines.append(float((1 - F.cosine_similarity(*vectors)).sum()))
        side_by_side = [F.normalize(each).flatten() for each in vectors]
        whole.append(1 - float(F.cosine_similarity(*side_by_side, dim=0)))
    return squares / tokens + 5 * float(np.mean(cosines)), float(np.mean(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_comes_nearer_and_its_distance_is_that_of_transformers(
    kind: str, bounds: Bounds, tmp_path: Path
) -> None:
    made = bounds(kind, config=BoundingConfig(40, 400, 3e-3, max_length=24))
    assert made.after.loss < 0.7 * made.before.loss
    assert made.after.cosine < 0.7 * made.before.cosine
    texts = tmp_path / "public.txt"
    found = distance(tmp_path / kind, made.path, texts)
    assert (made.after.loss, made.after.cosine) == pytest.approx(found, rel=1e-3, abs=1e-5)
    plain = distance(tmp_path / kind, tmp_path / kind, texts)
    assert (made.before.loss, made.before.cosine) == pytest.approx(plain, rel=1e-3, abs=1e-5)
    values = json.loads((made.path / "config.json").read_text())
    entry = values.pop("attnpriv")
    assert values == json.loads((tmp_path / kind / "config.json").read_text())
    assert entry["attention"]["clip"] == CLIP
    assert set(entry["held_out"]) == {"before", "after"}
    old, new = (load_file(each / "model.safetensors") for each in (tmp_path / kind, made.path))
    assert [(n, t.shape, t.dtype) for n, t in new.items()] == [
        (n, t.shape, t.dtype) for n, t in old.items()
    ]
    same = {name for name in old if torch.equal(old[name], new[name])}
    # A constant added to every key changes nothing, so such biases learn nothing.
    unmoved = ("word_embeddings", "tok_embeddings", "embed_tokens", "pooler", "key.bias")
    assert all(any(part in name for part in unmoved) for name in same), same
    assert any("embed" in name for name in same)


@pytest.mark.parametrize(("dtype", "cost"), [(torch.float16, 2e-3), (torch.bfloat16, 0.05)])
def test_the_distance_is_that_of_the_weights_as_they_are_written(
    dtype: torch.dtype, cost: float, bounds: Bounds, tmp_path: Path
) -> None:
    made = bounds("electra", dtype=dtype)
    new = load_file(made.path / "model.safetensors")
    assert {tensor.dtype for tensor in new.values()} == {dtype}
    found = distance(tmp_path / "electra", made.path, tmp_path / "public.txt")
    assert (made.after.loss, made.after.cosine) == pytest.approx(found, rel=1e-4)
    held_out = json.loads((made.path / "config.json").read_text())["attnpriv"]["held_out"]
    assert held_out["after"]["loss"] == made.after.loss
    assert held_out["before_rounding"]["loss"] != made.after.loss
    assert held_out["before_rounding"]["loss"] == pytest.approx(made.after.loss, rel=cost)


def test_a_bert_of_half_precision_has_the_distance_of_its_file_too(
    bounds: Bounds, tmp_path: Path
) -> None:
    """BERT runs in this package's own blocks, and transformers says the same of its file."""
    made = bounds("bert", dtype=torch.bfloat16)
    new = load_file(made.path / "model.safetensors")
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    found = distance(tmp_path / "bert", made.path, tmp_path / "public.txt")
    assert (made.after.loss, made.after.cosine) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("kind", ["electra", pytest.param("albert", marks=pytest.mark.exhaustive)])
def test_what_was_interrupted_ends_with_the_same_bits(
    kind: str, bounds: Bounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnpriv.training.bounded_encoder.SAVED_EVERY", 4)
    whole = bounds(kind, "whole")

    def stop(step: int, total: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bounds(kind, "stopped", on_step=stop)
    steps: list[int] = []
    again = bounds(
        kind, "stopped", resume=True, on_step=lambda step, total, loss: steps.append(step)
    )
    assert steps == list(range(5, 13))
    assert (again.before, again.after) == (whole.before, whole.after)
    left, right = ((made.path / "model.safetensors").read_bytes() for made in (whole, again))
    assert left == right


def as_alberts() -> Tokenizer:
    made = unigram(normalizers.Lowercase(), pre_tokenizers.Metaspace(), lines_of_letters())
    return with_ends(made)


def as_modernberts() -> Tokenizer:
    return with_ends(byte_pairs(prefix=False, trim=True, lines=lines_of_letters()))


def with_ends(made: Tokenizer) -> Tokenizer:
    made.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return made


@pytest.mark.parametrize(("kind", "make"), [("albert", as_alberts), ("modernbert", as_modernberts)])
def test_texts_are_read_as_the_encoders_own_tokeniser_reads_them(
    kind: str, make: Callable[[], Tokenizer], bounds: Bounds, tmp_path: Path
) -> None:
    tokenizer = make()
    family_encoder(kind, tmp_path / kind, vocab_size=tokenizer.get_vocab_size())
    tokenizer.save(str(tmp_path / kind / "tokenizer.json"))
    made = bounds(kind, config=BoundingConfig(3, 400, 3e-3, max_length=24))
    found = distance(tmp_path / kind, made.path, tmp_path / "public.txt")
    assert (made.after.loss, made.after.cosine) == pytest.approx(found, rel=1e-3)


def test_both_ways_of_running_an_encoder_measure_and_learn_the_same(
    bounds: Bounds, tmp_path: Path
) -> None:
    """An ERNIE without tasks is a BERT, which this package's own blocks run."""
    own = bounds("bert", "own")
    shutil.copytree(tmp_path / "bert", tmp_path / "ernie")
    path = tmp_path / "ernie" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "ernie"}))
    theirs = bounds("ernie", "theirs")
    for one, other in ((own.before, theirs.before), (own.after, theirs.after)):
        # Ours learn the sum of positions and segment, theirs learn each.
        assert one.loss == pytest.approx(other.loss, rel=1e-4 if one is own.before else 0.1)
        assert one.cosine == pytest.approx(other.cosine, rel=1e-3 if one is own.before else 0.1)


USERS = [*FREQUENT, "bert", *(pytest.param(k, marks=pytest.mark.exhaustive) for k in ("ernie",))]


@pytest.mark.parametrize("kind", USERS)
def test_a_users_classifier_keeps_the_bound_on_adversarial_inputs(
    kind: str, bounds: Bounds
) -> None:
    made = bounds(kind, auto="AutoModelForSequenceClassification")
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    model, report = load(made.path, output_loading_info=True)
    assert not any(report.values())
    model = harden(model).eval()
    ids, mask = torch.randint(5, 57, (3, 11)), torch.ones(3, 11).long()
    mask[1, 6:] = 0
    plain = load(made.path, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in [*model.parameters(), *plain.parameters()]:
            if parameter.ndim == 2:
                parameter *= 3
        words = model.get_input_embeddings()(ids) * 1e4
        given = {"inputs_embeds": words, "attention_mask": mask, "output_attentions": True}
        found, free = model(**given).attentions, plain(**given).attentions
    assert len(found) == model.config.num_hidden_layers
    distances = (torch.arange(11)[:, None] - torch.arange(11)).abs()
    for number, weights in enumerate(found):
        visible = mask.bool()[:, None, None].expand(3, 1, 11, 11)
        if kind == "modernbert" and model.config.layer_types[number] == "sliding_attention":
            visible = visible & (distances <= 2)
        rows = visible.any(-1)[:, 0]
        seen = visible[:, 0][rows][:, None]
        within_bounds(weights.transpose(1, 2)[rows], seen, ATTENTION)
    # Without the bound these inputs break it, which is 0.58 at three keys.
    assert max(float(weights[0].max()) for weights in free) > 0.9


@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "bart", "t5", "deberta-v2", "nomic_bert", "layoutlm", "vit"]
)
def test_what_cannot_be_bounded_is_named_and_so_is_what_can(
    kind: str, bounds: Bounds, tmp_path: Path
) -> None:
    folder = tmp_path / kind
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError) as caught:
        bounds(kind)
    message = str(caught.value)
    assert f"cannot bound model_type '{kind}'" in message
    assert all(name in message for name in (*FAMILIES, *ENCODERS))
    assert "\n" not in message
    assert {path.name for path in tmp_path.iterdir()} == {kind, "public.txt"}


def test_ids_without_an_embedding_are_refused(bounds: Bounds, tmp_path: Path) -> None:
    folder = tmp_path / "electra"
    random_encoder("electra", folder, vocab_size=20)
    letters_tokenizer(folder)
    with pytest.raises(InputError, match="token ids below 20, got 56"):
        bounds("electra")


def test_a_bounded_folder_is_not_bounded_again(bounds: Bounds, tmp_path: Path) -> None:
    made = bounds("electra")
    made.path.rename(tmp_path / "albert")
    with pytest.raises(InputError, match="is bounded already"):
        bounds("albert", "again")


def test_the_command(command: Callable[..., Any], tmp_path: Path) -> None:
    family_encoder("electra", tmp_path / "electra")
    letters_tokenizer(tmp_path / "electra")
    texts = tmp_path / "public.txt"
    texts.write_text("\n".join(lines_of_letters()))
    options = ["--texts", texts, "--max-length", 24, "--steps", 3, "--out", tmp_path / "calm"]
    made = command("encoder", "bound", "--encoder", tmp_path / "electra", *options)
    assert made.code == 0, made.err
    assert "the cosine distance of a text's vector from" in made.out
    data = tmp_path / "data.tsv"
    data.write_text("".join(f"ab {i}\tn{i % 2}\n" for i in range(200)))
    train = ["train", "--data", data, "--epsilon", 3, "--encoder", tmp_path / "calm"]
    trained = command(*train, "--out", tmp_path / "run")
    assert trained.code == 2
    assert "got 'electra'" in trained.err

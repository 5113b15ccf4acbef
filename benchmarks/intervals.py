"""Through how many hardened layers intervals say anything: interval bound propagation on MiniLM.

For each depth L from 1 to 6: the first L layers of MiniLM under the clip of ``BOUNDED`` (clamp, no
further training), a linear head on their mean, and boxes around every state after the
embedding of the middle token was moved by up to so many deviations of its coordinates, or replaced
by any token's. A
right answer counts as certified where the lower end of its margin is positive. Sound but for
float32's rounding. Needs the real data beside the checkout; prints one JSON line.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import BOUNDED
from attnpriv.data import load_dataset
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.models.blocks import Block
from attnpriv.models.pretrained import classifier_of, open_encoder
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import TOKENIZER

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sms_spam.tsv"
FITTED, TRIED, LONGEST = 200, 10, 32  # texts that heads are fitted to, texts tried, tokens
RADII = (1e-7, 1e-6, 1e-5)  # in deviations of a coordinate; and None, any token


@dataclass(frozen=True)
class Box:
    """Centre and radius of an interval for every number, [..., D]."""

    centre: Tensor
    radius: Tensor

    @property
    def low(self) -> Tensor:
        """The lower ends."""
        return self.centre - self.radius

    @property
    def high(self) -> Tensor:
        """The upper ends."""
        return self.centre + self.radius

    @staticmethod
    def between(low: Tensor, high: Tensor) -> Box:
        """From both ends."""
        return Box((low + high) / 2, (high - low) / 2)

    def __add__(self, other: Box) -> Box:
        return Box(self.centre + other.centre, self.radius + other.radius)


def linear(x: Box, layer: nn.Linear) -> Box:
    """A linear layer."""
    return Box(layer(x.centre), F.linear(x.radius, layer.weight.abs()))


def norm(x: Box, layer: nn.LayerNorm) -> Box:
    """Layer norm: the centred numbers over what their deviation can be, within ±√(D-1)."""
    dim = x.centre.shape[-1]
    centre = x.centre - x.centre.mean(-1, keepdim=True)
    # A coordinate less the mean of all: its own part and that of the others.
    radius = x.radius * (1 - 2 / dim) + x.radius.sum(-1, keepdim=True) / dim
    least = ((centre.abs() - radius).clamp(min=0)).square().mean(-1, keepdim=True)
    most = (centre.abs() + radius).square().mean(-1, keepdim=True)
    smallest, largest = (least + layer.eps).sqrt(), (most + layer.eps).sqrt()
    low, high, cap = centre - radius, centre + radius, (dim - 1) ** 0.5
    low = torch.where(low > 0, low / largest, low / smallest).clamp(-cap, cap)
    high = torch.where(high > 0, high / smallest, high / largest).clamp(-cap, cap)
    box = Box.between(low, high)
    return Box(box.centre * layer.weight + layer.bias, box.radius * layer.weight.abs())


def gelu(x: Box) -> Box:
    """It falls up to its minimum near -0.7518 and rises from there."""
    bottom = torch.tensor(-0.75179)
    ends = torch.stack([F.gelu(x.low), F.gelu(x.high)])
    low = ends.min(0).values
    inside = (x.low < bottom) & (x.high > bottom)
    low = torch.where(inside, torch.full_like(low, -0.17), low)
    return Box.between(low, ends.max(0).values)


def product(a: Box, b: Box) -> Box:
    """The product a @ b."""
    centre = a.centre @ b.centre
    radius = a.centre.abs() @ b.radius + a.radius @ (b.centre.abs() + b.radius)
    return Box(centre, radius)


def softmax(logits: Box) -> tuple[Tensor, Tensor]:
    """The smallest and largest of each weight."""
    low, high = logits.low.exp(), logits.high.exp()
    others_high = high.sum(-1, keepdim=True) - high
    others_low = low.sum(-1, keepdim=True) - low
    return low / (low + others_high), high / (high + others_low)


def mixed(low: Tensor, high: Tensor, values: Tensor) -> Tensor:
    """The least Σ w·v over weights [H, T, T] between these that sum to 1; values [H, T, Dh]."""
    order = values.argsort(1)  # the smallest values get as much weight as they can
    found = torch.einsum("hij,hjd->hid", low, values)
    left = (1 - low.sum(-1)).clamp(min=0).unsqueeze(-1).expand(-1, -1, values.shape[-1]).clone()
    room = high - low
    heads = torch.arange(len(values))[:, None]
    for rank in range(values.shape[1]):
        key = order[:, rank]  # [H, Dh]
        more = torch.minimum(left, room[heads, :, key].transpose(1, 2))
        found += more * values.gather(1, key.unsqueeze(1))
        left -= more
    return found


def _split(x: Tensor, heads: int) -> Tensor:
    """[T, D] to [H, T, D/H]."""
    return x.view(len(x), heads, -1).transpose(0, 1)


def attend(x: Box, block: Block) -> Box:
    """Hardened attention: logits within the clip, weights that sum to 1."""
    attention, config = block.attention, block.attention.core.config
    heads = attention.core.heads
    projected = linear(x, attention.qkv)
    thirds = zip(projected.centre.chunk(3, dim=-1), projected.radius.chunk(3, dim=-1), strict=True)
    q, k, v = (Box(_split(centre, heads), _split(radius, heads)) for centre, radius in thirds)
    scores = product(q, Box(k.centre.transpose(1, 2), k.radius.transpose(1, 2)))
    scale = q.centre.shape[-1] ** -0.5
    c = config.logit_bound
    low, high = ((each * scale).clamp(-c, c) for each in (scores.low, scores.high))
    weights = softmax(Box.between(low, high))
    least, most = mixed(*weights, v.low), -mixed(*weights, -v.high)
    joined = [each.transpose(0, 1).flatten(1) for each in (least, most)]
    return linear(Box.between(*joined), attention.output)


def layer(x: Box, block: Block) -> Box:
    """One post-norm block."""
    x = norm(x + attend(x, block), block.attention_norm)
    hidden = linear(gelu(linear(x, block.expand)), block.contract)
    return norm(x + hidden, block.output_norm)


def begin(model: TextClassifier, ids: Tensor, place: int, radius: float | None) -> Box:
    """The embeddings of a text, one of them moved by a radius or any token's."""
    x = model.embed(ids[None])[0]
    widths = torch.zeros_like(x)
    if radius is not None:
        widths[place] = radius * x.std()
        return Box(x, widths)
    every = model.embedding_norm(model.words.weight + model.positions.weight[place])
    low, high = x.clone(), x.clone()
    low[place], high[place] = every.min(0).values, every.max(0).values
    return Box.between(low, high)


@torch.no_grad()
def main() -> None:
    """Measure, and print one row for each radius and depth."""
    if not DATA.is_file():
        sys.exit(f"this benchmark needs {DATA}")
    torch.set_num_threads(1)
    data = load_dataset(str(DATA))
    order = list(range(len(data)))
    random.Random(0).shuffle(order)
    source = open_encoder("minilm")
    tokenizer = PretrainedTokenizer.from_file(source.folder / TOKENIZER)
    model = classifier_of(source, 2, BOUNDED).eval()
    rows = order[: FITTED + TRIED]
    encoded = [torch.tensor(tokenizer.encode(data.records[row], LONGEST).ids) for row in rows]
    labels = [data.labels[row] for row in rows]
    features: list[list[Tensor]] = [[] for _ in model.layers]
    for ids in encoded:
        x = model.embed(ids[None])
        for depth, block in enumerate(model.layers):
            x, _ = block(x, torch.ones(1, len(ids), dtype=torch.bool))
            features[depth].append(x[0].mean(0))
    heads = []
    for each in features:
        fitted = LogisticRegression(C=1.0, max_iter=500)
        fitted.fit(torch.stack(each[:FITTED]).numpy(), labels[:FITTED])
        heads.append((torch.tensor(fitted.coef_[0]).float(), float(fitted.intercept_[0])))
    print(json.dumps({"benchmark": "intervals", "rows": _rows(model, encoded, labels, heads)}))


def _rows(
    model: TextClassifier, encoded: list[Tensor], labels: list[int], heads: list[Any]
) -> list[dict[str, Any]]:
    found = []
    for radius in (*RADII, None):
        tried = [_tried(model, ids, y, heads, radius) for ids, y in _last(encoded, labels)]
        for depth in range(len(heads)):
            own = [each[depth] for each in tried]
            right = [each for each in own if each["right"]]
            found.append(
                {
                    "moved": "any token" if radius is None else radius,
                    "layers": depth + 1,
                    "right": len(right),
                    "certified": sum(each["certified"] for each in right),
                    "width": sum(each["width"] for each in own) / len(own),
                }
            )
            print(found[-1], file=sys.stderr, flush=True)
    return found


def _last(encoded: list[Tensor], labels: list[int]) -> list[tuple[Tensor, int]]:
    return list(zip(encoded[FITTED:], labels[FITTED:], strict=True))


def _tried(
    model: TextClassifier, ids: Tensor, label: int, heads: list[Any], radius: float | None
) -> list[dict[str, Any]]:
    """After each layer: whether the answer is right and certified, and how wide states are."""
    x, found = begin(model, ids, len(ids) // 2, radius), []
    sign = 1.0 if label == 1 else -1.0
    for block, (weights, bias) in zip(model.layers, heads, strict=True):
        assert isinstance(block, Block)
        x = layer(x, block)
        centre, spread = x.centre.mean(0), x.radius.mean(0)
        exact = sign * (weights @ _exact(model, ids, len(found) + 1) + bias)
        least = sign * (weights @ centre + bias) - weights.abs() @ spread
        found.append(
            {
                "right": bool(exact > 0),
                "certified": bool(least > 0),
                "width": float(2 * x.radius.mean()),
            }
        )
    return found


def _exact(model: TextClassifier, ids: Tensor, layers: int) -> Tensor:
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    x, _, _ = model.run_layers(model.embed(ids[None]), mask, stop=layers)
    return x[0].mean(0)


if __name__ == "__main__":
    main()

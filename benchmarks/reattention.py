"""Does correcting attention for the noise of private training make the model better?

Noise in what a key is made of adds, on average, to the weight of that key: for a key
k + e with e ~ N(0, diag(v)), E[exp(q·(k + e)/√Dh)] = exp(q·k/√Dh + Σ q²v/(2Dh)). The re-attention
mechanism (Ding et al., ICML 2024, arXiv:2405.18194, section 5) subtracts that second term. Its v
starts from an effective error of every parameter, noise multiplier · C / B, and of the embedding
of a token that a share p of the records holds 1/p times as much, and is carried through the layers
as the variance of independent Gaussians.

One cell is a data set, an attention, an ε, the strength by which the effective errors are
multiplied (0 corrects nothing, 1 is the paper's) and a seed, which sets the split, the first
weights, the draws and the noise: cells of one seed differ in nothing but the correction. The shares
p are counted in the training rows themselves. That is the best case for the correction, and no
privacy covers it, nor the known seeds: nothing here is a recipe.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import MultiHeadSelfAttention, Packing, attention_weights
from attnpriv.config import ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Encoding
from attnpriv.models.blocks import Block
from attnpriv.models.text import TextClassifier
from attnpriv.privacy import noise_multiplier_for
from attnpriv.training.plan import make_schedule
from attnpriv.training.preparation import Classifier, make_records, seeded
from benchmarks.dp_utility import DELTA, fit, new_classifier
from benchmarks.hardening_frontier.tasks import Task, load_task

STRENGTHS = (0.0, 0.1, 1.0)
RECIPES = {
    "scratch": TrainConfig("all", steps=60, learning_rate=3e-3, micro_batch_tokens=4096),
    "minilm": TrainConfig(
        "all", steps=40, batch_size=512, learning_rate=5e-4, precision="bfloat16"
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training."""

    dataset: str
    encoder: str
    attention: str
    learning_rate: float
    epsilon: float
    strength: float
    seed: int


def main() -> None:
    """Measure the cells that are missing, and print the table of differences."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("docs/reattention.jsonl"))
    parser.add_argument("--datasets", default="sms,sst2")
    parser.add_argument("--encoder", choices=RECIPES, default="scratch", help="(%(default)s)")
    parser.add_argument("--attentions", default="plain", help="(%(default)s)")
    parser.add_argument("--learning-rate", type=float, help="of the encoder (the recipe's)")
    parser.add_argument("--epsilon", type=float, default=3.0, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = read(options.results)
    datasets, attentions = options.datasets.split(","), options.attentions.split(",")
    rate = options.learning_rate or RECIPES[options.encoder].learning_rate
    choices = product(datasets, attentions, range(options.seeds), STRENGTHS)
    for dataset, attention, seed, strength in choices:
        cell = Cell(dataset, options.encoder, attention, rate, options.epsilon, strength, seed)
        if cell not in done:
            done[cell] = measure(cell)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(cell), "result": done[cell]}) + "\n")
    print(json.dumps({"benchmark": "reattention", "delta": DELTA, "rows": summarise(done)}))


def read(path: Path) -> dict[Cell, dict[str, Any]]:
    """The cells that were measured before."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {Cell(*(row[each.name] for each in fields(Cell))): row["result"] for row in rows}


def summarise(done: dict[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every strength, the scores of its seeds and what it adds to each without correction."""
    groups: dict[Cell, dict[int, dict[str, Any]]] = {}
    for cell, result in done.items():
        groups.setdefault(replace(cell, seed=0), {})[cell.seed] = result
    rows = []
    for cell, results in groups.items():
        plain = groups.get(replace(cell, strength=0.0), {})
        rows.append(
            {
                **{name: value for name, value in asdict(cell).items() if name != "seed"},
                "scores": [result["score"] for result in results.values()],
                "points_gained": _gains(results, plain, "score", 100),
                "log_loss_added": _gains(results, plain, "log_loss", 1),
            }
        )
    return rows


def _gains(
    results: dict[int, dict[str, Any]], plain: dict[int, dict[str, Any]], name: str, factor: float
) -> list[float]:
    """By how much the results of each seed exceed those without correction."""
    return [factor * (results[seed][name] - plain[seed][name]) for seed in results if seed in plain]


@dataclass(frozen=True)
class Errors:
    """The standard deviations that the effective errors start from.

    Attributes:
        parameters: of every parameter but the embeddings.
        words: of the embedding of each token of the vocabulary, [V].
        positions: of the embedding of each position, [P].
    """

    parameters: float
    words: Tensor
    positions: Tensor

    @classmethod
    def of(cls, texts: Sequence[Encoding], size: float, config: ModelConfig) -> Errors:
        """From the records that are trained on, for parameters of that error."""
        words = Counter(token for text in texts for token in set(text.ids))
        positions = Counter(place for text in texts for place in range(len(text.ids)))

        def spread(counts: Counter[int], rows: int) -> Tensor:
            # What no record holds is seen in no text: any number will do.
            shares = torch.tensor([counts[row] or len(texts) for row in range(rows)]) / len(texts)
            return size / shares

        return cls(size, spread(words, config.vocab_size), spread(positions, config.max_length))


class ReattentiveClassifier(TextClassifier):
    """A classifier that subtracts from every logit what noise in its key adds to its weight."""

    errors: Errors
    _variance: Tensor

    def embed(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """As ``TextClassifier.embed`` of padded texts; keeps the variances for the layers."""
        with torch.no_grad():
            words = self.errors.words[ids] ** 2
            variance = (words + self.errors.positions[: ids.shape[1]] ** 2).unsqueeze(-1)
            x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
            self._variance = normed(self.embedding_norm, x, variance.expand_as(x))
        return super().embed(ids, packing)

    def run_layers(
        self,
        x: Tensor,
        mask: Tensor | Packing,
        start: int = 0,
        stop: int | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """As ``TextClassifier.run_layers``, of all layers and without their weights."""
        assert isinstance(mask, Tensor)
        assert (start, stop, need_weights) == (0, None, False)
        states, variance = [], self._variance
        for number, block in enumerate(self.layers, start=1):
            assert isinstance(block, Block)
            x, variance = corrected_block(block, x, variance, mask, self.errors.parameters)
            if number in self.config.pooled_layers:
                states.append(x)
        return x, states, []


def corrected_block(
    block: Block, x: Tensor, variance: Tensor, mask: Tensor, error: float
) -> tuple[Tensor, Tensor]:
    """One block with corrected attention: x and its variance [B, T, D] to those of its output."""
    attended, spread = corrected_attention(block.attention, x, variance, mask, error)
    added = x + attended
    x = block.attention_norm(added)
    expanded = block.expand(x)
    out = x + block.contract(F.gelu(expanded))
    with torch.no_grad():
        variance = normed(block.attention_norm, added, variance + spread)
        wide = linear(block.expand, x, variance, error)
        # To first order: the derivative of the Gaussian error linear unit.
        slope = 0.5 * (1 + torch.erf(expanded / 2**0.5))
        slope = slope + expanded * torch.exp(-(expanded**2) / 2) / (2 * torch.pi) ** 0.5
        narrow = linear(block.contract, F.gelu(expanded), slope**2 * wide, error)
        variance = normed(block.output_norm, out, variance + narrow)
    return block.output_norm(out), variance


def corrected_attention(
    layer: MultiHeadSelfAttention, x: Tensor, variance: Tensor, mask: Tensor, error: float
) -> tuple[Tensor, Tensor]:
    """Corrected self-attention of x [B, T, D], and the variance of its output [B, T, D]."""

    def split(y: Tensor) -> Tensor:
        return y.view(*y.shape[:2], 3, layer.core.heads, -1).permute(2, 0, 3, 1, 4)

    q, k, v = split(layer.qkv(x))
    with torch.no_grad():
        _, key_variance, value_variance = split(linear(layer.qkv, x, variance, error))
    q, k = corrected(q, k, key_variance)
    attended, _ = layer.core(q, k, v, mask)
    joined = attended.transpose(1, 2).flatten(2)
    with torch.no_grad():
        weights = attention_weights(q, k, mask, layer.core.config)
        spread = (weights**2 @ value_variance.to(weights.dtype)).transpose(1, 2).flatten(2)
        spread = linear(layer.output, joined, spread, error)
    return layer.output(joined), spread


def corrected(q: Tensor, k: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys [B, H, T, 2Dh] whose scaled product is q·k/√Dh - Σ q²·variance/(2Dh)."""
    width = q.shape[-1]
    longer = torch.cat([q, -(q**2) / (2 * width**0.5)], -1)
    return longer * 2**0.5, torch.cat([k, variance.to(k.dtype)], -1)


def linear(layer: nn.Linear, x: Tensor, variance: Tensor, error: float) -> Tensor:
    """The variance of a linear layer's output, of independent inputs, weights and biases."""
    passed = variance @ (layer.weight**2).mT
    own = error**2 * ((x**2 + variance).sum(-1, keepdim=True) + 1)
    return passed + own


def normed(layer: nn.LayerNorm, x: Tensor, variance: Tensor) -> Tensor:
    """The variance after a layer norm of x, whose statistics are taken as exact."""
    return variance * layer.weight**2 / (x.var(-1, keepdim=True, unbiased=False) + layer.eps)


def measure(cell: Cell) -> dict[str, Any]:
    """Train the encoder whole, and score it on held-out rows."""
    started = time.process_time()
    task = load_task(cell.dataset)
    rate = cell.learning_rate
    recipe = replace(RECIPES[cell.encoder], learning_rate=rate, seed=cell.seed)
    with seeded(cell.seed):
        classifier = corrected_classifier(cell, task)
    encodings = classifier.read(task.data)
    rows, held_out = task.split(cell.seed)
    training_rows = [encodings[row] for row in rows]
    schedule = make_schedule(recipe, len(rows))
    noise = noise_multiplier_for(cell.epsilon, DELTA, schedule.sample_rate, schedule.steps)
    if isinstance(classifier.model, ReattentiveClassifier):
        size = cell.strength * noise * PrivacyConfig.max_grad_norm / schedule.batch_size
        classifier.model.errors = Errors.of(training_rows, size, classifier.model.config)
    labels = torch.tensor(task.data.labels)
    records = make_records(classifier, training_rows, labels[rows], recipe)
    fit(classifier.model, records, recipe, schedule, cell.epsilon, noise)
    with torch.no_grad():
        logits = classifier.model.head(classifier.features([encodings[r] for r in held_out]))
    score = task.score(held_out, logits.softmax(-1).double().numpy())
    loss = float(F.cross_entropy(logits, labels[held_out]))
    seconds = round(time.process_time() - started, 1)
    print(f"{cell}: {score:.4f}, {loss:.5f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return {
        "metric": task.metric,
        "score": score,
        "log_loss": loss,
        "noise_multiplier": noise,
        "seconds": seconds,
    }


def corrected_classifier(cell: Cell, task: Task) -> Classifier:
    """What the command line would train; its corrected copy, but at strength 0."""
    plain = new_classifier(task, cell.encoder, cell.attention)
    if not cell.strength:
        return plain
    model = ReattentiveClassifier(plain.model.config)
    model.load_state_dict(plain.model.state_dict())
    return replace(plain, model=model)


if __name__ == "__main__":
    main()

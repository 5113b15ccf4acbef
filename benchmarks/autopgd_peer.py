"""AutoPGD beside that of the Adversarial Robustness Toolbox, on the same embeddings and radii.

Both get the same documents, losses, numbers of steps and of starts, and the gradients of the model
alone; ours begins at the document, not where PGD ended. Needs ART 1.20.1, whose requirements would
change those of this repository, in an environment of its own that sees this one's packages::

    python -m venv /tmp/art
    /tmp/art/bin/pip install --no-deps adversarial-robustness-toolbox==1.20.1 six
    OURS=$(python -c "import site; print(site.getsitepackages()[0])")
    THEIRS=$(/tmp/art/bin/python -c "import site; print(site.getsitepackages()[0])")
    echo "import site; site.addsitedir('$OURS')" > $THEIRS/ours.pth
    PYTHONPATH=. /tmp/art/bin/python -m benchmarks.autopgd_peer RUN --data NAME

One JSON line at the end: how many pairs of a document and a scale each of the two broke.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnpriv.audit.documents import prepare, sample
from attnpriv.audit.robustness.balls import Ball
from attnpriv.audit.robustness.batches import Batch, coordinate_deviation, is_right, make_batch
from attnpriv.audit.robustness.captum_attacks import pgd
from attnpriv.audit.robustness.embedding import make_target
from attnpriv.audit.robustness.searching import Target, breaks
from attnpriv.data import load_dataset
from attnpriv.runs.folder import Run, load_run

STARTS = 2


def main() -> None:
    """Attack, print a line for each scale, and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.autopgd_peer")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--data", required=True, help="the data it was trained on")
    parser.add_argument("--documents", type=int, default=25, help="(%(default)s)")
    parser.add_argument("--scales", default="0.02,0.05,0.1,0.2,0.4", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(options.run)
    batches = _right(run, _batches(run, options.data, options.documents))
    target = make_target(run.model, coordinate_deviation(batches))
    rows = []
    for scale in map(float, options.scales.split(",")):
        broken = np.array([_broken(target, each, scale, options.steps) for each in batches])
        pgd_, ours, theirs = broken.sum(0).tolist()
        row = {
            "scale": scale,
            "pgd": pgd_,
            "ours": ours,
            "art": theirs,
            "ours_alone": int((broken[:, 1] & ~broken[:, 2]).sum()),
            "art_alone": int((broken[:, 2] & ~broken[:, 1]).sum()),
        }
        rows.append(row)
        print(row, flush=True)
    print(
        json.dumps(
            {
                "benchmark": "autopgd_peer",
                "run": options.run.name,
                "documents": len(batches),
                "steps": options.steps,
                "starts": STARTS,
                "rows": rows,
            }
        )
    )


def _batches(run: Run, data_name: str, most: int) -> list[Batch]:
    data = load_dataset(data_name)
    held_out = data.subset(run.split(data).held_out)
    documents = prepare(run.modality, held_out, [()] * len(held_out))
    return [
        make_batch(documents.embedded(run.model, d), torch.tensor([held_out.labels[d]]))
        for d in sample(len(held_out), most, 0)
    ]


def _right(run: Run, batches: list[Batch]) -> list[Batch]:
    answer = make_target(run.model, 1.0).answer
    return [batch for batch in batches if bool(is_right(answer, batch.x, batch))]


def _broken(target: Target, batch: Batch, scale: float, steps: int) -> tuple[bool, bool, bool]:
    radius = target.radius(scale, "linf", batch.x.shape[-1])
    end = pgd(target.answer, batch, torch.tensor([radius]))
    own, _ = breaks(target, batch, radius, "linf", steps=steps)
    return not bool(is_right(target.answer, end, batch)), own, _by_art(target, batch, radius, steps)


class _Logits(nn.Module):
    """Embeddings [N, T, D] of one document to its class logits [N, K]."""

    def __init__(self, target: Target, mask: Tensor) -> None:
        super().__init__()
        self.answer, self.mask = target.answer, mask
        self.none = nn.Parameter(torch.zeros(1))  # ART asks a parameter where the model is

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x, self.mask.expand(len(x), -1))


def _by_art(target: Target, batch: Batch, radius: float, steps: int) -> bool:
    """Whether ART's AutoPGD breaks a document by any loss, within the ball."""
    import art.attacks.evasion as evasion
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = target.answer(batch.x, batch.mask).shape[-1]
    estimator = PyTorchClassifier(
        _Logits(target, batch.mask),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(batch.x.shape[1:]),
        nb_classes=classes,
        device_type="cpu",
    )
    kinds = ("cross_entropy",) if classes == 2 else ("cross_entropy", "difference_logits_ratio")
    for number, kind in enumerate(kinds):
        np.random.seed(number)
        attack: Any = evasion.AutoProjectedGradientDescent(
            estimator,
            norm=np.inf,
            eps=radius,
            eps_step=2 * radius,
            max_iter=steps,
            nb_random_init=STARTS,
            loss_type=kind,
            verbose=False,
        )
        y = np.eye(classes)[batch.labels.numpy()]
        moved = attack.generate(batch.x.numpy(), y, mask=batch.movable.numpy())
        inside = Ball(batch.x, batch.movable, torch.tensor([radius])).nearest(torch.tensor(moved))
        if not bool(is_right(target.answer, inside, batch)):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())

"""Makes the files of ``minilm-bounded`` in ``attnpriv/models`` from a bounded copy of minilm.

What is kept is the difference of the copy's weights to those of minilm, rounded to a few bits each.
How far the rounded copy is from minilm, on the texts that were held out when it was taught, is
measured and recorded beside the same figure before rounding.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from attnpriv.attention.bound import Bound
from attnpriv.config import BoundingConfig
from attnpriv.models import bounded
from attnpriv.models.bounded import pack, unpack
from attnpriv.models.pretrained import Encoder, open_encoder
from attnpriv.training.bounded_encoder import distance_between

HERE = Path(bounded.__file__).parent


def difference(copy: Encoder, plain: Encoder) -> dict[str, torch.Tensor]:
    """What was added to each weight that changed."""
    return {
        name: copy.state[name] - tensor
        for name, tensor in plain.state.items()
        if not torch.equal(copy.state[name], tensor)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="what attnpriv encoder bound --encoder minilm made")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="the files it read")
    parser.add_argument(
        "--step", type=float, default=0.4, help="as in attnpriv.models.bounded.pack"
    )
    options = parser.parse_args()
    plain, copy = open_encoder("minilm"), open_encoder(options.folder)
    assert copy.bound is not None
    content = pack(difference(copy, plain), options.step)
    added = unpack(content)
    rounded = replace(
        copy, state={name: tensor + added.get(name, 0) for name, tensor in plain.state.items()}
    )
    config = BoundingConfig(**copy.bound.provenance["taught"])
    after = distance_between(plain, rounded, options.texts, config)
    made = dict(copy.bound.provenance)
    made["held_out"] = {**made["held_out"], "packed": asdict(after)}
    made["difference_sha256"] = hashlib.sha256(content).hexdigest()
    record = Bound(copy.bound.attention, made).entry()
    (HERE / bounded.DIFFERENCE).write_bytes(content)
    (HERE / bounded.RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(content):,} bytes; {json.dumps(made['held_out'])}\n")

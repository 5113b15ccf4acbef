from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from attnpriv.audit.attention import measure_attention
from attnpriv.audit.documents import Documents
from attnpriv.config import AttentionConfig
from attnpriv.explain.attention import recorded_value_norms, rollout
from attnpriv.models.text import TextClassifier


def test_lifts_equal_a_slow_loop_over_the_documents(
    make_model: Callable[[AttentionConfig], TextClassifier], documents: Documents
) -> None:
    model = make_model(AttentionConfig())
    result = measure_attention(model, documents, permutations=20, seed=0).flow.result(20)
    shares = {"rollout": 0.0, "norm": 0.0, "head": 0.0}
    uniform = 0.0
    for d in range(len(documents)):
        flags = documents.sensitive[d][1:-1]
        if not flags.any():
            continue
        with recorded_value_norms(model) as norms:
            example = documents.embedded(model, d)
            seen = model.run(example.x, example.mask, need_maps=True)
            weights = torch.stack(seen.self_attention())[:, 0]
        carried = weights * torch.stack(norms)[:, 0, :, None]  # ‖α f(x)‖, [L, H, T, T]
        reached = rollout(weights).mean(0)[1:-1].double()
        uniform += flags.mean()
        shares["rollout"] += float(reached[flags].sum() / reached.sum())
        content = carried.mean(2)[..., 1:-1].double()
        own = content[..., flags].sum(-1) / content.sum(-1)
        shares["norm"] += float(own.mean())
        shares["head"] += float(own[1, 2])
    assert result.rollout.permuted.lift.value == pytest.approx(shares["rollout"] / uniform, 1e-5)
    measured = result.norm_weighted.permuted.lift.value
    assert measured == pytest.approx(shares["norm"] / uniform, rel=1e-5)
    assert result.heads[5].name == "layer 2 head 3"
    assert result.heads[5].permuted.lift.value == pytest.approx(shares["head"] / uniform, rel=1e-5)
    assert [layer.name for layer in result.layers] == ["layer 1", "layer 2"]

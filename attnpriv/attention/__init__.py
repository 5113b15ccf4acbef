"""Attention whose logits are bounded by construction.

========================================  ======================================================
input                                     result
========================================  ======================================================
c ≤ 0, τ ≤ 0, one of them NaN or inf      InputError when the configuration is made
mask of wrong shape or not bool           InputError, with the shapes that fit
q, k or v of wrong shape, of different    InputError
dtypes, or not floating
float16, bfloat16, float32, float64       supported; half precision is computed in float32 where
                                          that matters, and rounded once
a row with no visible key                 zero weights and zero output, zero gradients
Tq = 0 or Tk = 0                          empty result; with Tk = 0 the output is zeros
one visible key                           weight 1
a position bias                           added before the clip, which bounds both together; refused
                                          with ``norm`` and with additive scores; not trained
NaN in a visible query or key             NaN in the rows that see it, never a plausible weight
infinite logits                           ``clamp``, ``tanh`` and ``relative`` take them to ±c;
                                          infinite q or k under ``norm``, an unclipped infinite
                                          logit, or products that overflow both ways, give NaN rows
vectors whose squared norm overflows      shortened like any other vector under ``norm``
``torch.jit.trace``                       InputError; ``torch.export`` works, with varying sizes
keys and values that are masked           must be finite: 0·NaN is NaN
========================================  ======================================================
"""

from attnpriv.attention.drop_in import harden
from attnpriv.attention.functional import attend, attention_weights, choose_backend
from attnpriv.attention.modules import (
    AttentionPooling,
    HardenedAttention,
    MultiHeadCrossAttention,
    MultiHeadSelfAttention,
    PerRecord,
)
from attnpriv.attention.packing import Packing

__all__ = [
    "AttentionPooling",
    "HardenedAttention",
    "MultiHeadCrossAttention",
    "MultiHeadSelfAttention",
    "Packing",
    "PerRecord",
    "attend",
    "attention_weights",
    "choose_backend",
    "harden",
]

"""Hardened attention inside finished models of ``torch.nn`` and Hugging Face ``transformers``."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from attnpriv.attention.drop_in.multihead import harden_multihead, multihead_attention
from attnpriv.attention.drop_in.transformers_models import harden_registered, registered_attention
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def harden(model: Model, config: AttentionConfig) -> Model:
    """Harden the attention of a finished model in place; its own weights stay as they are.

    Two kinds of attention are found, at any depth: ``nn.MultiheadAttention``, so also that in the
    layers of ``nn.Transformer``; and in models of ``transformers`` the attention that goes through
    ``AttentionInterface``, as that of BERT and its descendants does. With no clip and a temperature
    of 1 the model computes what it did. Hardening it again replaces the configuration.

    What was replaced can be listed:

    >>> from attnpriv.attention import HardenedAttention
    >>> model = harden(nn.TransformerEncoderLayer(8, 2), AttentionConfig(clip=2.0))
    >>> [name for name, part in model.named_modules() if isinstance(part, HardenedAttention)]
    ['self_attn.core']

    What changes besides the attention weights:

    * Attention dropout is no longer applied in training: it multiplies the weights that it keeps
      by 1/(1-p), past their bound. Other dropout stays.
    * A query that sees no key gets zeros instead of NaN, or instead of the mean of hidden values.
    * PyTorch's fused encoder layer and its nested tensors are off, and with them the zeros that
      ``nn.TransformerEncoder`` can give at padded positions in eval mode.
    * A ``transformers`` model gets its own copy of its configuration, which others may share. It
      returns attention weights where it hands ``output_attentions`` on to its attention, as BERT
      does and GPT-2 does not.
    * With ``config.temperature_floor`` the state dict gains the learned temperatures. Otherwise its
      keys stay, and what ``save_pretrained`` writes loads as the plain model.

    Args:
        model: holds, or is, an ``nn.MultiheadAttention`` or a whole model of ``transformers``.
        config: temperature and clipping; the score must be ``dot_product``.

    Returns:
        The same model.

    Raises:
        InputError: there is nothing to harden, the score is additive, or the model holds attention
            that would not be bounded: a subclass of ``nn.MultiheadAttention``; inside a model of
            ``transformers`` a class with "attention" in its name that bypasses the interface, or
            whose logits are not scaled by 1/√Dh. Nothing is changed then. The hardened model itself
            raises it for a float mask with other values than 0 and -inf, for nested tensors, for
            whatever a ``transformers`` model hands to its attention that could change the weights,
            and when its implementation was switched afterwards.

    Claim: with a clip, every weight of the attention that was replaced lies within
    ``guarantees.weight_bounds(c, τ, n)`` for n visible keys, in training and in evaluation, whether
    weights are asked for or not; τ is the floor where there is one, and ``bias_k`` and
    ``add_zero_attn`` add a visible key each. Not covered: attention in modules that the list above
    does not name; what the rest of the model computes; a model that was saved, and loaded without
    hardening it again.
    """
    if config.score != "dot_product":
        raise InputError(
            f"expected score dot_product, which the weights were made for, got {config.score!r}"
        )
    multihead, registered = multihead_attention(model), registered_attention(model)
    if not multihead and not registered:
        raise InputError(
            "expected a model that holds nn.MultiheadAttention or is of transformers, "
            f"got a {type(model).__name__} with no attention of either kind"
        )
    harden_multihead(model, multihead, config)
    harden_registered(model, registered, config)
    return model

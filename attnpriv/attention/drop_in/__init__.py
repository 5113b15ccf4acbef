"""Hardened attention inside finished models of ``torch.nn`` and Hugging Face ``transformers``."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from attnpriv.attention.drop_in.multihead import harden_multihead, make_core, multihead_attention
from attnpriv.attention.drop_in.transformers_models import (
    applications,
    harden_registered,
    heads_and_width,
    registered_attention,
)
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def harden(model: Model, config: AttentionConfig) -> Model:
    """Harden the attention of a finished model in place; its own weights stay as they are.

    Two kinds of attention are found, at any depth: ``nn.MultiheadAttention``, so also that in the
    layers of ``nn.Transformer``; and in models of ``transformers`` the attention of the families
    that ``drop_in/families.py`` lists, from BERT and its descendants to Llama, BART and Whisper.
    With no clip and a temperature of 1 the model computes what it did. Hardening it again with an
    equal configuration changes nothing; another one replaces it, and starts with new temperatures.

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
    * Keys and values that groups of heads share, as in Llama, are repeated for each head.
    * With ``config.temperature_floor`` the state dict gains the learned temperatures. Otherwise its
      keys stay. What ``save_pretrained`` writes loads as the plain model, and hardening that one
      under the same floor reads the temperatures again.

    Args:
        model: holds, or is, an ``nn.MultiheadAttention`` or a whole model of ``transformers``.
        config: temperature and clipping; the score must be ``dot_product``.

    Returns:
        The same model.

    Raises:
        InputError: there is nothing to harden, the score is additive, the model was saved with
            learned temperatures that are not found, or it holds attention that might not be
            bounded: a subclass of what would be hardened, or a module of it that was given another
            ``forward``; beside or inside a model of ``transformers`` another family than those
            listed, or a class with "attention" in its name that bypasses ``AttentionInterface``.
            After this error and any other the model is as it was, bit for bit. The hardened model
            itself raises it for a float mask that is learned or holds other values than 0 and
            -inf, for nested tensors, for whatever a ``transformers`` model hands to its attention
            that could change the weights, when its implementation was switched afterwards, and in
            ``torch.jit.trace``. ``torch.export`` works, for sizes that vary, and so does the ONNX
            export built on it; an ONNX graph cannot refuse a float mask, and takes all but -inf in
            it for 0.

    Claim: with a clip, every weight of the attention that was replaced lies within
    ``guarantees.weight_bounds(c, τ, n)`` for n visible keys, in training and in evaluation, whether
    weights are asked for or not; τ is the floor where there is one, and ``bias_k`` and
    ``add_zero_attn`` add a visible key each. Condition: the families of ``transformers`` compute
    what they did when they were listed, which the tests check for the version they run with. Not
    covered: attention in modules that the list above does not name; what the rest of the model
    computes, with the answers of several attentions for one; a model that was saved, and loaded
    without hardening it again.
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
    # All that can fail comes before the first change.
    cores = {part: make_core(part, config, part.num_heads, part.head_dim) for part in multihead}
    more = {part: make_core(part, config, *heads_and_width(part)) for part in registered}
    for part, times in applications(model).items():
        more[part].applications = times
    harden_registered(model, more, config)
    harden_multihead(model, cores)
    return model

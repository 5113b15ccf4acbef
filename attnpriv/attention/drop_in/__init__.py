"""Hardened attention inside finished models of ``torch.nn`` and Hugging Face ``transformers``."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from attnpriv.attention.drop_in.multihead import harden_multihead, make_core, multihead_attention
from attnpriv.attention.drop_in.taught import choose_attention
from attnpriv.attention.drop_in.transformers_models import (
    applications,
    harden_registered,
    heads_and_width,
    owners_in,
    registered_attention,
)
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def harden(model: Model, config: AttentionConfig | None = None) -> Model:
    """Harden the attention of a finished model in place; its own weights stay as they are.

    Two kinds of attention are found, at any depth: ``nn.MultiheadAttention``, including that in the
    layers of ``nn.Transformer``; and, in models of ``transformers``, the attention of the families
    that ``drop_in/families.py`` lists, from BERT and its descendants to Llama, BART and Whisper.
    With no clip and a temperature of 1 the model computes what it did before. Hardening it again
    with an equal configuration changes nothing; a different configuration replaces the first one
    and starts with new temperatures.

    To list what was replaced:

    >>> from attnpriv.attention import HardenedAttention
    >>> model = harden(nn.TransformerEncoderLayer(8, 2), AttentionConfig(clip=2.0))
    >>> [name for name, part in model.named_modules() if isinstance(part, HardenedAttention)]
    ['self_attn.core']

    What changes besides the attention weights:

    * Attention dropout is no longer applied in training: it multiplies the weights that it keeps
      by 1/(1-p), past their bound. Other dropout stays.
    * A query that sees no key gets zeros, where it got NaN or the mean of hidden values before.
    * PyTorch's fused encoder layer and its nested tensors are off, and with them the zeros that
      ``nn.TransformerEncoder`` can give at padded positions in eval mode.
    * A ``transformers`` model gets its own copy of its configuration, which other models may share.
      It returns attention weights if its code passes ``output_attentions`` on to its attention:
      BERT does, GPT-2 does not.
    * Keys and values that groups of heads share, as in Llama, are repeated for each head.
    * With ``config.temperature_floor`` the state dict gains the learned temperatures; otherwise its
      keys stay the same. What ``save_pretrained`` writes loads as the plain model. Hardening that
      model under the same floor reads the temperatures again.

    Args:
        model: holds, or is, an ``nn.MultiheadAttention`` or a whole model of ``transformers``.
        config: temperature and clipping; the score must be ``dot_product``. None takes what a model
            of ``transformers`` was taught under, where ``attnpriv encoder bound`` made the folder
            it, or a model that it was fine-tuned from, was loaded from.

    Returns:
        The same model.

    Raises:
        InputError: there is nothing to harden, the score is additive, ``config`` is None and the
            model does not say what it was taught under, or says another attention than ``config``;
            the model was saved with learned temperatures that are not found, or it holds attention
            that might not be bounded. That is a subclass of an attention class that would be
            hardened; a module of such a class whose ``forward`` was replaced; and, beside or inside
            a model of ``transformers``, a family that is not listed or a class with "attention" in
            its name that bypasses ``AttentionInterface``. After this or any other error the model
            is as it was, bit for bit. The hardened model itself raises InputError for a float mask
            that is learned or holds values other than 0 and -inf, for nested tensors, for any
            argument that a ``transformers`` model passes to its attention and that could change the
            weights, if its attention implementation was switched afterwards, and in
            ``torch.jit.trace``. ``torch.export`` works, with varying sizes, and so does the ONNX
            export built on it; an ONNX graph cannot refuse a float mask, and reads every value but
            -inf in it as 0.

    Claim: with a clip, every weight of the attention that was replaced lies within
    ``guarantees.weight_bounds(c, τ, n)`` for n visible keys, in training and in evaluation, whether
    or not weights are asked for; τ is the floor if there is one, and ``bias_k`` and
    ``add_zero_attn`` add one visible key each. Condition: the families of ``transformers`` compute
    what they did when they were listed, which the tests check for the version they run with. Not
    covered: attention in modules that the list above does not name; what the rest of the model
    computes, for example by combining the answers of several attentions; a model that was saved,
    and loaded without hardening it again.
    """
    config = choose_attention(owners_in(model), config)
    if config.score != "dot_product":
        raise InputError(
            "expected score 'dot_product', which the model's weights were trained with, "
            f"got {config.score!r}"
        )
    multihead, registered = multihead_attention(model), registered_attention(model)
    if not multihead and not registered:
        raise InputError(
            "expected a model with nn.MultiheadAttention in it, or a model of transformers, "
            f"got a {type(model).__name__} with no attention of either kind"
        )
    # Everything that can fail comes before the first change.
    cores = {part: make_core(part, config, part.num_heads, part.head_dim) for part in multihead}
    more = {part: make_core(part, config, *heads_and_width(part)) for part in registered}
    for part, times in applications(model).items():
        more[part].applications = times
    harden_registered(model, more, config)
    harden_multihead(model, cores)
    return model

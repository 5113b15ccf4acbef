"""A text classifier that reads tokens one by one: attention pools vectors that know no context.

Each token has a fixed vector, of norm 1, and one learned query attends to all of them, or one in
each head. So what a token adds to the answer depends on that token alone, which is what the
certificate of ``attnpriv.models.edits`` needs. Positions do not enter.

Shapes: B batch, T tokens, D width, H heads, V vocabulary, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import HardenedAttention, Packing, PerRecord
from attnpriv.config import ModelConfig, parse_trainable
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier, TextModel

ROWS_AT_ONCE = 512  # tokens that are encoded in one pass; bounds memory only
SPREAD = 0.5  # of which power of its deviation a direction is divided by


class QueryPooling(nn.Module):
    """One learned query a head attends to the tokens; keys and values are parts of their vectors.

    The queries start at 0, which weighs all tokens alike. Their products with parts of vectors of
    norm 1 are the logits: they are multiplied by √(D/H), by which attention divides.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.dim // config.heads
        self.query = PerRecord(torch.zeros(config.heads, 1, width))
        self.core = HardenedAttention(config.attention, config.heads, width)

    def forward(
        self, x: Tensor, mask: Tensor | Packing | None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map x [B, T, D] under mask [B, T] to ([B, D], weights [B, H, 1, T] or None).

        Packed texts [N, D] become ([B, D], None).
        """
        if isinstance(mask, Packing):
            return self._pool_packed(x, mask), None
        values = x.view(*x.shape[:-1], self.core.heads, -1).transpose(1, 2)
        q = self.query(x.detach()) * math.sqrt(values.shape[-1])
        pooled, weights = self.core(q.to(x.dtype), values, values, mask, need_weights)
        return pooled.flatten(1), weights

    def _pool_packed(self, x: Tensor, packing: Packing) -> Tensor:
        padded, pooled = packing.pad(x), x.new_empty(packing.size, x.shape[-1])
        for group in packing.groups:
            texts = packing.texts[group.sources[:, 0]]
            pooled[texts], _ = self(group.part(padded), group.mask)
        return pooled


class WordsClassifier(TextModel):
    """Token ids to class logits by one attention over fixed vectors of the tokens.

    The vectors come from ``token_vectors`` and are never trained. Nothing is normalised after the
    pooling: the class logits are a weighted mean over the tokens of what each of them says.

    Attributes:
        blocks: the one pooling.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList([QueryPooling(config)])
        self.head = nn.Linear(config.dim, config.num_labels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def embed(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """The vectors of the tokens: ids [B, T] to [B, T, D].

        Raises:
            InputError: a text is longer than the model reads.
        """
        self.check_length(ids, packing)
        embedded: Tensor = self.words(ids)
        return embedded

    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Attend to x [B, T, D] under mask [B, T].

        Returns:
            What was pooled, [B, D], and the weights [B, H, T, T] or None. The one query of a head
            stands in the place of every position's.
        """
        pooled, weights = self.blocks[0](x, mask, need_weights)
        if weights is None:
            return [pooled], None
        return [pooled], [weights.expand(-1, -1, weights.shape[-1], -1)]

    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """What ``encode`` pooled, [B, D], as it is: its norm is at most √H."""
        return states[0]

    def select_trainable(self, trainable: str) -> None:
        """Choose what is trained: the head (``head``), or the query as well (``all``).

        Raises:
            InputError: another form.
        """
        kind = parse_trainable(trainable).kind
        if kind not in ("head", "all"):
            raise InputError(
                f"expected trainable head or all with encoder words, got {trainable!r}"
            )
        self.requires_grad_(False)
        self.head.requires_grad_(True)
        self.blocks.requires_grad_(kind == "all")

    def fast_parameters(self) -> list[nn.Parameter]:
        """The head and the query: both start at 0 and see vectors of norm 1."""
        return [*self.head.parameters(), *self.blocks.parameters()]


@torch.no_grad()
def token_vectors(encoder: TextClassifier, tokenizer: PretrainedTokenizer) -> Tensor:
    """The vector of each token that a text can produce, [V, D], of norm 1.

    Each is what the encoder makes of a text with this token alone, after its last layer. Directions
    in which the tokens differ most are damped: otherwise a few of them, which say how common a
    token is, would take most of the norm (Mu and Viswanath 2018, arXiv:1702.01417).

    Ids that no text produces have the vector of the unknown token or, where there is none, of one
    other token, so that the smallest over all
    rows is the smallest over the vocabulary. Nothing here has seen any private text.

    Args:
        encoder: pretrained.
        tokenizer: the encoder's own.
    """
    produced = tokenizer.producible()
    parts = torch.split(produced, ROWS_AT_ONCE)
    states = torch.cat([_alone(encoder, ids, tokenizer) for ids in parts])
    centred = (states - states.mean(0)).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    damped = centred @ (directions * variances.clamp(min=1e-9) ** (-SPREAD / 2))
    vectors = F.normalize(damped, dim=-1).float()
    unknown = tokenizer.unknown_id
    spare = 0 if unknown is None else produced.tolist().index(unknown)
    table = vectors[spare].repeat(tokenizer.vocab_size, 1)
    table[produced] = vectors
    return table


def _alone(encoder: TextClassifier, ids: Tensor, tokenizer: PretrainedTokenizer) -> Tensor:
    """The last state of each token in a text of its own, [n, D]."""
    first, last = (torch.full_like(ids, end) for end in tokenizer.ends)
    texts = torch.stack([first, ids, last], dim=1)
    x, _, _ = encoder.run_layers(encoder.embed(texts), torch.ones_like(texts, dtype=torch.bool))
    return x[:, 1]

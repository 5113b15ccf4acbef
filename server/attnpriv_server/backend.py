"""Who computes the probabilities: the run's own float32 model, or a copy of its blocks in bfloat16.

Shapes: B batch, T positions, N positions of all records in a row, P pixels of a patch, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnpriv.attention import Packing
from attnpriv.attention.scores import has_native_bfloat16
from attnpriv.config import ModelConfig
from attnpriv.data.image.decoding import decode
from attnpriv.errors import InputError
from attnpriv.models.blocks import BlocksClassifier
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.shapes import Shape
from attnpriv.models.text import TextModel, pack_tokens
from attnpriv.runs.folder import Run
from attnpriv.tasks import CLASSIFY
from attnpriv_server.domain import Precision
from attnpriv_server.rows import ImageRefusedError, Row, flat


class Backend(Protocol):
    """A model that is ready to answer, from several threads at once.

    Claim: with the same lengths of all records and in one place among them, a record's
    probabilities depend on itself alone, to the bit: what stands in the others changes nothing. Not
    covered: the lengths and the place, with which the rounding does change.
    """

    @property
    def memory_bytes(self) -> int:
        """What it holds beyond the run's own float32 weights."""

    def classify(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Class probabilities [B, K] of B records, each given as ``Sample.values``."""

    def decode(self, files: Sequence[bytes]) -> NDArray[np.uint8]:
        """Images as the model reads them, [B, H, W, C], from PNG or JPEG files.

        Raises:
            ImageRefusedError: a file is no such image.
        """


class EagerBackend:
    """PyTorch, operation by operation, in this process; see ``Backend``.

    Embeddings, pooling, head and softmax are those of float32 in either precision. A model without
    layers has nothing else, and its certificates are about float32.

    Args:
        model: in evaluation mode; it stays as it is.
        dtype: of the blocks, float32 or bfloat16.

    Attributes:
        model: the given one in float32, and otherwise a copy that shares all but the blocks.
        dtype: of the blocks.
        memory_bytes: of the copied blocks.
    """

    def __init__(self, model: AttentionClassifier, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, torch.float32
        if dtype != torch.float32 and isinstance(model, BlocksClassifier):
            self.model, self.dtype = _with_rounded_blocks(model, dtype), dtype
        shared = {id(weight) for weight in chain(model.parameters(), model.buffers())}
        self.memory_bytes = sum(each.nbytes for each in self.weights() if id(each) not in shared)

    def weights(self) -> Iterator[Tensor]:
        """All that it computes with."""
        return chain(self.model.parameters(), self.model.buffers())

    def classify(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """As ``Backend.classify``.

        Raises:
            InputError: a text is longer than the model's positions.
        """
        return self.classify_flat(flat(rows), [len(row) for row in rows])

    def classify_flat(
        self, values: NDArray[np.generic], lengths: Sequence[int]
    ) -> NDArray[np.float32]:
        """As ``classify``, for what ``flat`` gives, and the lengths of the records."""
        if isinstance(self.model, TextModel):
            return self.probabilities(*pack_tokens(_tensor(values, np.int64), lengths))
        patches = _tensor(values, np.float32).view(len(lengths), lengths[0], -1)
        return self.probabilities(patches, torch.ones(patches.shape[:2], dtype=torch.bool))

    def decode(self, files: Sequence[bytes]) -> NDArray[np.uint8]:
        """As ``Backend.decode``."""
        shape = self.model.config.pixels
        assert shape is not None  # nobody asks a model of texts
        images = []
        for index, content in enumerate(files):
            try:
                images.append(decode(content, shape))
            except InputError as error:
                raise ImageRefusedError(index, str(error)) from None
        return np.stack(images)

    @torch.inference_mode()
    def probabilities(self, values: Tensor, mask: Tensor | Packing) -> NDArray[np.float32]:
        """Class probabilities [B, K] for what stands at each position under mask [B, T].

        That are ids [B, T], or the ids [N] of a packing of B texts, which spends nothing on
        padding; or the patches [B, T, P] of images.
        """
        probabilities: NDArray[np.float32] = CLASSIFY.answer(self.logits(values, mask)).numpy()
        return probabilities

    def logits(self, values: Tensor, mask: Tensor | Packing) -> Tensor:
        """Class logits [B, K], float32, as for ``probabilities``."""
        states, _ = self.model.encode(self.embed(values, mask), mask)
        features = self.model.pool([hidden.float() for hidden in states], mask)
        logits: Tensor = self.model.head(features)
        return logits

    def embed(self, values: Tensor, mask: Tensor | Packing) -> Tensor:
        """What the first block reads, [B, T, D] or [N, D]."""
        if isinstance(self.model, TextModel):
            packing = mask if isinstance(mask, Packing) else None
            return self.model.embed(values, packing).to(self.dtype)
        return self.model.embed(values).to(self.dtype)


def blank_rows(config: Shape) -> list[Row]:
    """The shortest and the longest record that a model reads, with nothing in them."""
    if isinstance(config, ModelConfig):
        return [[0], [0] * config.max_length]
    black = np.zeros((config.height, config.width, config.channels), np.uint8)
    return [sample.values for sample in config.patches.read([black])]


def _tensor(values: NDArray[np.generic], kind: type[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(kind))


def make_backend(run: Run, precision: Precision) -> EagerBackend:
    """Prepare a run for answering; its own model stays as it is, for explanations.

    Args:
        run: the model.
        precision: ``float32`` gives the bits of the run's model; ``bfloat16`` rounds the weights
            and the states of its blocks; ``auto`` takes bfloat16 where the CPU multiplies it.

    The bounds of ``attnpriv.guarantees`` hold in both, up to the slack that docs/guarantees.md
    states for the dtype: temperatures stay in float32, as they were certified.
    """
    return EagerBackend(run.model, block_dtype(precision))


def block_dtype(precision: Precision) -> torch.dtype:
    """In which a model's blocks are computed on this machine."""
    half = precision == "bfloat16" or (precision == "auto" and has_native_bfloat16())
    return torch.bfloat16 if half else torch.float32


def _with_rounded_blocks(model: BlocksClassifier, dtype: torch.dtype) -> BlocksClassifier:
    shared = [module for name, module in model.named_children() if name != "blocks"]
    rounded = copy.deepcopy(model, {id(module): module for module in shared})
    for module in rounded.blocks.modules():
        # Not what attention has of its own: rounding a temperature would void its certificate.
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.to(dtype)
    if can_lay_out_weights():
        _lay_out_weights(rounded.blocks)
    return rounded


def can_lay_out_weights() -> bool:
    """Whether oneDNN is there and has bfloat16 for this CPU, which it has not without AVX-512."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _lay_out_weights(blocks: nn.Module) -> None:
    for module in list(blocks.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _LaidOutLinear(child))


class _LaidOutLinear(nn.Module):
    """A linear layer of halves whose weights lie as the CPU's kernels read them; the same bits.

    PyTorch lays the weights of ``nn.Linear`` out anew in every call, which adds half of its time to
    the product where a text is short. Its compiler does it once, by the two operators that are
    called here and documented nowhere: a test holds them to the bits of ``nn.Linear``.

    Args:
        linear: in bfloat16; not changed.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", linear.bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return product

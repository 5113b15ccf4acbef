"""The scattering transform of an image with a linear head: features that no data was needed for.

Wavelets of two scales and eight angles, the modulus of what they find, wavelets of the larger scale
on that, and a mean over places of 4 × 4 pixels. Nothing in it is learned, so that it costs no ε;
the head alone is. It has no attention: it is the baseline that models with attention must beat
under differential privacy.

Sources: Bruna and Mallat 2013 (arXiv:1203.1513); filters, padding and places as in Kymatio
(Andreux et al. 2020, arXiv:1812.11214; kymatio 0.3.0 gives the same numbers up to rounding);
normalisation in groups, which looks at one image alone, as in Tramèr and Boneh 2021
(arXiv:2011.11660).

Shapes: B images of C channels, H × W pixels, padded to M × N; 81 paths: 1 of order 0, 16 of order
1 and 64 of order 2.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import Packing
from attnpriv.config import parse_trainable
from attnpriv.errors import InputError
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.shapes import ANGLES, SCALES, ScatteringConfig

STRIDE = 2**SCALES  # pixels from one place to the next
GROUPS = 27  # of the paths of a channel, each with 3: what Tramèr and Boneh took for MNIST
Plane = NDArray[np.complex128]


def gabor(size: tuple[int, int], sigma: float, angle: float, xi: float, slant: float) -> Plane:
    """A plane wave under a Gaussian, wrapped around the edges of the plane, [M, N].

    Args:
        size: M and N.
        sigma: width of the Gaussian, in pixels.
        angle: of the wave.
        xi: its frequency.
        slant: how much wider the Gaussian is across the wave.
    """
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    curve = turn @ np.diag([1, slant**2]) @ turn.T / (2 * sigma**2)
    plane = np.zeros(size, np.complex128)
    for down in range(-2, 3):
        for right in range(-2, 3):
            y, x = np.mgrid[: size[0], : size[1]]
            y, x = y + down * size[0], x + right * size[1]
            bell = curve[0, 0] * y * y + (curve[0, 1] + curve[1, 0]) * y * x + curve[1, 1] * x * x
            wave = xi * (y * math.cos(angle) + x * math.sin(angle))
            plane += np.exp(-bell + 1j * wave)
    return plane / (2 * math.pi * sigma**2 / slant)


def morlet(size: tuple[int, int], scale: int, angle: int) -> Plane:
    """A Morlet wavelet: a Gabor filter from which so much Gaussian is taken that its mean is 0."""
    sigma, xi = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
    turned, slant = (ANGLES // 2 - 1 - angle) * math.pi / ANGLES, 4 / ANGLES
    wave = gabor(size, sigma, turned, xi, slant)
    bell = gabor(size, sigma, turned, 0.0, slant)
    wavelet: Plane = wave - wave.sum() / bell.sum() * bell
    return wavelet


def filters(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The wavelets [SCALES, ANGLES, M, N] and the low pass [M, N] as functions of frequency.

    They are real: each filter is even but for its conjugate.
    """
    wavelets = np.array([[morlet(size, s, a) for a in range(ANGLES)] for s in range(SCALES)])
    low = gabor(size, 0.8 * 2 ** (SCALES - 1), 0.0, 0.0, 1.0)
    of_wavelets, of_low = np.fft.fft2(wavelets).real, np.fft.fft2(low).real
    return torch.from_numpy(of_wavelets).float(), torch.from_numpy(of_low).float()


class Scattering(nn.Module):
    """Images [B, C, H, W] to their paths at every place, [B, C·81, H/4, W/4].

    What wavelets of the larger scale find is kept at every second pixel, since they leave no finer
    detail.
    """

    wavelets: Tensor
    low: Tensor
    low_of_half: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.padding = (*_around(width), *_around(height))
        left, right, above, below = self.padding
        wavelets, low = filters((height + above + below, width + left + right))
        # Not saved with the weights: the shape says all of them.
        self.register_buffer("wavelets", wavelets, persistent=False)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("low_of_half", _of_half(low), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Every channel by itself, in single precision."""
        with torch.autocast(images.device.type, enabled=False):
            padded = F.pad(images.float(), self.padding, mode="reflect")
            found = torch.fft.fft2(padded)[:, :, None]
            fine, coarse = (self._moduli(found, scale) for scale in range(SCALES))
            second = self._moduli(fine[:, :, :, None], 1).flatten(2, 3)
            smooth = [
                _means(torch.cat([found, fine], 2) * self.low, STRIDE),
                _means(torch.cat([coarse, second], 2) * self.low_of_half, STRIDE // 2),
            ]
            return torch.cat(smooth, 2)[..., 1:-1, 1:-1].flatten(1, 2)

    def _moduli(self, found: Tensor, scale: int) -> Tensor:
        """The spectra of the moduli of what the wavelets of a scale find, [..., ANGLES, M, N]."""
        filtered = _folded(found * self.wavelets[scale], 2**scale)
        spectra: Tensor = torch.fft.fft2(torch.fft.ifft2(filtered).abs())
        return spectra


def _folded(spectra: Tensor, by: int) -> Tensor:
    """The spectra [..., M/by, N/by] of every by-th value of what has the given ones."""
    *front, rows, columns = spectra.shape
    folded: Tensor = spectra.view(*front, by, rows // by, by, columns // by).mean((-4, -2))
    return folded


def _means(smoothed: Tensor, by: int) -> Tensor:
    """Every by-th value of what has these spectra."""
    means: Tensor = torch.fft.ifft2(_folded(smoothed, by)).real
    return means


def _of_half(low: Tensor) -> Tensor:
    """A low pass for values at every second pixel: the same without the upper frequencies."""
    kept = low.clone()
    for dim, length in enumerate(low.shape):
        kept.narrow(dim, length // 4, length // 2).zero_()
    return _folded(kept, 2) * 4


def _around(length: int) -> tuple[int, int]:
    """How many pixels are added before and after: at least 4 in all, up to a multiple of 4."""
    added = ((length + STRIDE) // STRIDE + 1) * STRIDE - length
    return added // 2, added - added // 2


class ScatteringClassifier(AttentionClassifier):
    """The pixels of patches to class logits, by a linear head on their scattering transform.

    A patch is its own embedding, so that removing it is blackening it, and the transform reads the
    whole image. There are no blocks, and there is no attention.
    """

    config: ScatteringConfig

    def __init__(self, config: ScatteringConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList()
        self.scattering = Scattering(config.height, config.width)
        self.head = nn.Linear(config.features, config.num_labels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def attention_shape(self) -> tuple[int, int]:
        """No layers and no heads."""
        return 0, 0

    def embed(self, values: Tensor) -> Tensor:
        """The pixels of each patch as they are, [B, T, P].

        Raises:
            InputError: there are other patches than the model reads.
        """
        expected = (self.config.max_length, self.config.dim)
        if values.shape[1:] != expected:
            raise InputError(
                f"expected {expected[0]} patches of {expected[1]} numbers, got "
                f"{' × '.join(map(str, values.shape[1:]))}"
            )
        return values

    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Put x [B, T, P] together; the state is [B, C·81, H/4, W/4], and there are no maps."""
        config = self.config
        p, (rows, columns) = config.patch, config.patches.grid
        cut = x.view(len(x), rows, columns, p, p, config.channels)
        images = cut.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, rows * p, columns * p)
        return [self.scattering(images[:, :, : config.height, : config.width])], None

    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """All paths at all places, normalised in groups and then to norm 1, [B, F]."""
        groups = F.group_norm(states[0], GROUPS * self.config.channels)
        return F.normalize(groups.flatten(1), dim=-1)

    def select_trainable(self, trainable: str) -> None:
        """The head.

        Raises:
            InputError: anything else.
        """
        if parse_trainable(trainable).kind != "head":
            raise InputError(
                f"expected trainable head with scattering, which learns nothing else, got "
                f"{trainable!r}"
            )
        self.head.requires_grad_(True)

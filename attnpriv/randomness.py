"""Keys and streams of random numbers, for Poisson sampling and for Gaussian noise.

::

    StepKeys ── advance() ──► StepKeys of the next step       (the key before is gone)
        ├── sampling key ──► Stream.uniform       the coins of Poisson sampling
        └── noise key    ──► Stream.add_normal_   the noise on the summed gradients

The only source is ChaCha20. The generators of NumPy and torch are no faster
(``benchmarks.secure_noise``), and torch's generator on the CPU uses only the low 32 bits of its
seed, so that whoever sees its output can try all seeds.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from typing import Any, NamedTuple

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray
from torch import Tensor

from attnpriv.errors import InputError

KEY_BYTES = 32
PAIRS_AT_ONCE = 1 << 14  # of normal numbers; what they need fits into a core's L2 cache
BLOCK_BYTES = 64  # of the keystream, for one value of ChaCha20's counter
BYTES_PER_PAIR = 12  # 8 for the radius, 4 for the angle
SMALLEST_STD, LARGEST_STD = 1e-30, 1e30  # float32 holds their multiples


class OneStepKeys(NamedTuple):
    """The keys of one step."""

    sampling: bytes
    noise: bytes


class StepKeys:
    """The secret from which the randomness of every step is derived, forward only.

    Claim: each step's sampling key, noise key and next secret are HMAC-SHA-256 values of the secret
    before, under different labels. None of them can be computed from the others, and whoever reads
    ``key`` in a checkpoint cannot compute the keys of the steps before it.
    Condition: the first key is secret and uniform, as that of ``from_system`` is.
    Not covered: the steps *after* it. Whoever reads a checkpoint and sees the training go on knows
    the batches and the noise of those steps. Nor is memory wiped: a core dump or swap may hold
    earlier keys.

    Args:
        key: 32 secret bytes, for instance those of a checkpoint.

    Raises:
        InputError: the key is not 32 bytes long.
    """

    def __init__(self, key: bytes) -> None:
        self._key = _checked_key(key)

    @classmethod
    def from_system(cls) -> StepKeys:
        """Start from 256 bits of the operating system's random generator."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: int) -> StepKeys:
        """Start from a number, so that a run can be repeated.

        Not covered: anything, against whoever knows or guesses the number.
        """
        return cls(hashlib.sha256(f"attnpriv step keys from seed {seed}".encode()).digest())

    @property
    def key(self) -> bytes:
        """The secret to continue from: ``StepKeys(keys.key)`` gives the same steps as ``keys``."""
        return self._key

    def advance(self) -> OneStepKeys:
        """The keys of the next step; the secret they came from is replaced by its hash."""
        step = OneStepKeys(self.derive("sampling"), self.derive("noise"))
        self._key = self.derive("next")
        return step

    def derive(self, purpose: str) -> bytes:
        """Another key from the same secret, from which that cannot be computed."""
        return hmac.digest(self._key, f"attnpriv {purpose}".encode(), "sha256")


class Stream:
    """Numbers from the ChaCha20 keystream of one key; each byte of it is used once.

    The same key and the same calls give the same bits for any number of torch threads. Another
    version of NumPy or another processor may round the last bit of a normal number differently.

    Claim: the bits behind the numbers cannot be told from random ones, nor the rest be predicted
    from some, without the key (ChaCha20, RFC 8439; nonce and counter start at zero).
    Condition: the key is secret and uniform, makes one stream only, and gives at most 256 GiB,
    which is 45 billion normal numbers.
    Not covered: floating-point attacks. The normal numbers are rounded to float32, and which of
    them can occur depends on what they are added to (Mironov 2012; Holohan and Braghin,
    arXiv:2107.10138). Nor timing, other side channels, or reading the process's memory.

    Args:
        key: 32 bytes.

    Raises:
        InputError: the key is not 32 bytes long.
    """

    def __init__(self, key: bytes) -> None:
        self._key = _checked_key(key)
        self._position = 0  # bytes of the keystream that are used up
        self._cipher = self._cipher_at(0)

    def uniform(self, size: int) -> Tensor:
        """Float64 numbers in [0, 1): multiples of 2^-53, all equally likely."""
        bits = np.frombuffer(self._keystream(8 * size), "<u8") >> np.uint64(11)
        return torch.from_numpy(bits * 2.0**-53)

    def below(self, bound: int) -> int:
        """A whole number from 0 to ``bound`` - 1, each exactly equally likely.

        Numbers of as many bits are drawn until one is below the bound, twice on average at most.

        Raises:
            InputError: the bound is below 1.
        """
        if bound < 1:
            raise InputError(f"expected bound >= 1, got {bound}")
        bits = (bound - 1).bit_length()
        while True:
            number = int.from_bytes(self._keystream(-(-bits // 8)), "little") & ((1 << bits) - 1)
            if number < bound:
                return number

    def add_normal_(
        self, out: Tensor, std: float, *, start: int = 0, whole: int | None = None
    ) -> Tensor:
        """Add independent N(0, std²) noise to ``out`` in place.

        Each number of a tensor has its own place in the keystream. So processes that hold parts of
        one tensor add to each number the noise that one process adds to it, to the bit, and the
        stream stands at the same place afterwards.

        Args:
            out: a contiguous float32 tensor on the CPU, of any shape, empty ones included.
            std: 0, or between 1e-30 and 1e30; it is rounded to float32.
            start: where ``out`` begins among the numbers of the whole tensor, if it is a part.
            whole: how many numbers the whole tensor has; by default, those of ``out``.

        Returns:
            ``out``.

        Raises:
            InputError: the tensor is not contiguous float32 on the CPU, ``std`` is out of range, or
                the part does not lie in the whole.

        Claim: the distribution is that of ``normal_pairs``, which reaches 9.4 σ.
        """
        if out.dtype != torch.float32 or out.device.type != "cpu" or not out.is_contiguous():
            raise InputError(
                "expected a contiguous float32 tensor on the CPU to add noise to, got "
                f"{str(out.dtype).removeprefix('torch.')} of shape {tuple(out.shape)} and strides "
                f"{out.stride()} on {out.device}"
            )
        if not (std == 0 or SMALLEST_STD <= std <= LARGEST_STD):
            raise InputError(f"expected std 0 or from {SMALLEST_STD} to {LARGEST_STD}, got {std}")
        numbers = out.detach().view(-1).numpy()  # shares the memory
        whole = numbers.size if whole is None else whole
        if not 0 <= start <= whole - numbers.size:
            raise InputError(
                f"expected a part of {whole} numbers, got {numbers.size} from {start} on"
            )
        for place in range(0, whole, 2 * PAIRS_AT_ONCE):
            size = min(2 * PAIRS_AT_ONCE, whole - place)
            pairs = (size + 1) // 2
            if place + size <= start or place >= start + numbers.size:
                self._skip(BYTES_PER_PAIR * pairs)
                continue
            block = self._keystream(BYTES_PER_PAIR * pairs)
            first, second = normal_pairs(
                np.frombuffer(block, "<i8", pairs),
                np.frombuffer(block, "<i4", offset=8 * pairs),
                std,
            )
            _add_where_they_meet(numbers, first, place - start)
            _add_where_they_meet(numbers, second[: size - pairs], place + pairs - start)
        return out

    def _keystream(self, size: int) -> bytes:
        self._position += size
        return self._cipher.update(bytes(size))

    def _skip(self, size: int) -> None:
        self._position += size
        self._cipher = self._cipher_at(self._position)

    def _cipher_at(self, position: int) -> CipherContext:
        block, rest = divmod(position, BLOCK_BYTES)
        counter_and_nonce = block.to_bytes(4, "little") + bytes(12)
        cipher = Cipher(ChaCha20(self._key, counter_and_nonce), None).encryptor()
        cipher.update(bytes(rest))
        return cipher


def normal_pairs(
    radius_bits: NDArray[np.int64], angle_bits: NDArray[np.int32], std: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn uniform integers into pairs of independent N(0, std²) numbers (Box and Muller 1958).

    Args:
        radius_bits: uniform 64-bit integers k; the radius is σ·sqrt(-2 ln u), u = |k + ½| / 2^63.
        angle_bits: as many uniform 32-bit integers; the angle is their multiple of π / 2^31.
        std: σ.

    Claim: u is never 0 and keeps its relative precision where it is small, so that the radius
    reaches sqrt(128 ln 2) σ = 9.4 σ; 2^-64 of a Gaussian's radii lie beyond.
    Uniforms of 24 bits would end at 5.8 σ, those of 32 bits at 6.7 σ. The angle has the 24 bits of
    float32.
    """
    uniform: NDArray[Any] = radius_bits.astype(np.float64)
    uniform += 0.5
    np.abs(uniform, out=uniform)
    uniform *= 2.0**-63
    # float64 as far as the logarithm: near u = 1 float32 would leave a grid of 3e-4 in the radius.
    np.log(uniform, out=uniform)
    uniform *= -2.0
    radius = uniform.astype(np.float32)
    np.sqrt(radius, out=radius)
    radius *= np.float32(std)
    angle = angle_bits.astype(np.float32)
    angle *= np.float32(math.pi * 2.0**-31)
    cosine = np.cos(angle)
    cosine *= radius
    sine = np.sin(angle, out=angle)
    sine *= radius
    return cosine, sine


def _add_where_they_meet(
    numbers: NDArray[np.float32], others: NDArray[np.float32], place: int
) -> None:
    """Add others to the numbers, the first at ``place``, as far as there are numbers to meet."""
    begin, end = max(0, place), min(numbers.size, place + others.size)
    if begin < end:
        numbers[begin:end] += others[begin - place : end - place]


def _checked_key(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise InputError(f"expected a key of {KEY_BYTES} bytes, got {len(key)}")
    return bytes(key)

"""PNG and JPEG to pixels, whatever the bytes hold; nothing else of the library touches Pillow.

What a file claims to be is looked at before any pixel is decoded, so that a small file can fill
neither the memory nor the time.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from attnpriv.data.image.records import Pixels, described
from attnpriv.errors import InputError

MAX_BYTES = 16 * 2**20  # of a file
MAX_PIXELS = 2**22  # of an image, such as 2,048 × 2,048
# Of a progressive JPEG, each of which goes through all pixels; usual files have about ten.
MAX_SCANS = 100
FORMATS = ("PNG", "JPEG")
GREY = ("1", "L", "LA")
START_OF_SCAN = b"\xff\xda"


def decode(content: bytes, shape: tuple[int, int, int] | None = None) -> Pixels:
    """Decode an image to [H, W, C]: one channel where the file is grey, else red, green and blue.

    What is transparent shows black. Colour profiles and the orientation that a camera noted are not
    looked at. Safe in every thread.

    Args:
        content: the file.
        shape: H, W and C that are wanted. A grey file becomes colour where that is wanted, and
            nothing else is converted. By default any.

    Raises:
        InputError: the bytes are no PNG or JPEG, are damaged or cut off, hold several frames or 16
            bits a channel, are another shape, or are more than the limits above allow. The message
            quotes no content.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"expected an image of at most {MAX_BYTES} bytes, got {len(content)}")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check(image, content)
            if shape is not None:
                _check_shape(image, shape)
            pixels = _pixels(image)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds at hostile bytes
        raise InputError("expected a PNG or JPEG image that is whole and undamaged") from error
    return pixels if shape is None else pixels.repeat(shape[2] // pixels.shape[2], 2)


def _check(image: Image.Image, content: bytes) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"expected at most {MAX_PIXELS} pixels, got {width} × {height}")
    if (frames := getattr(image, "n_frames", 1)) != 1:
        raise InputError(f"expected an image of one frame, got {frames}")
    if image.mode.startswith(("I", "F")):
        raise InputError("expected an image of 8 bits a channel, got more")
    if image.format == "JPEG" and (scans := content.count(START_OF_SCAN)) > MAX_SCANS:
        raise InputError(f"expected a JPEG of at most {MAX_SCANS} scans, got {scans}")


def _check_shape(image: Image.Image, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    found = (image.height, image.width, 1 if image.mode in GREY else 3)
    if found[:2] != (height, width) or found[2] > channels:
        raise InputError(f"expected an image of {described(shape)}, got {described(found)}")


def _pixels(image: Image.Image) -> Pixels:
    grey = image.mode in GREY
    if image.has_transparency_data:
        shown = Image.new("RGBA", image.size, "black")
        shown.alpha_composite(image.convert("RGBA"))
        image = shown
    pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    return pixels[..., None] if grey else pixels

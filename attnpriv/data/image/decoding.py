"""PNG and JPEG to pixels, whatever the bytes hold; nothing else of the library touches Pillow.

The size that a file claims is looked at before any pixel is decoded, so that a small file cannot
fill the memory.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from attnpriv.data.image.records import Pixels
from attnpriv.errors import InputError

MAX_BYTES = 16 * 2**20  # of a file
MAX_PIXELS = 2**22  # of an image, such as 2,048 × 2,048
FORMATS = ("PNG", "JPEG")
GREY = ("1", "L", "LA")


def decode(content: bytes) -> Pixels:
    """Decode an image to [H, W, C]: one channel where the file is grey, else red, green and blue.

    What is transparent shows black. Colour profiles and the orientation that a camera noted are not
    looked at.

    Raises:
        InputError: the bytes are no PNG or JPEG, are damaged or cut off, hold several frames or 16
            bits a channel, or are more than the limits above allow. The message quotes no content.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"expected an image of at most {MAX_BYTES} bytes, got {len(content)}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of what is probably an attack
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check(image)
                return _pixels(image)
        except InputError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds at hostile bytes
            raise InputError("expected a PNG or JPEG image that is whole and undamaged") from error


def _check(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"expected at most {MAX_PIXELS} pixels, got {width} × {height}")
    if (frames := getattr(image, "n_frames", 1)) != 1:
        raise InputError(f"expected an image of one frame, got {frames}")
    if image.mode.startswith(("I", "F")):
        raise InputError("expected an image of 8 bits a channel, got more")


def _pixels(image: Image.Image) -> Pixels:
    grey = image.mode in GREY
    if image.has_transparency_data:
        shown = Image.new("RGBA", image.size, "black")
        shown.alpha_composite(image.convert("RGBA"))
        image = shown
    pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    return pixels[..., None] if grey else pixels

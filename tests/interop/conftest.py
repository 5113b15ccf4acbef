"""The server as its command starts it, with TLS and tokens, and clients that know nothing of it.

``make interop`` puts each client into an environment of its own and says where; without that there
is nothing to run here.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attnpriv_server.access import new_token

ENVIRONMENTS = os.environ.get("ATTNPRIV_INTEROP")
# The scripts that ask and check are run in those environments.
collect_ignore_glob = ["ask_*.py", "check_*.py"] if ENVIRONMENTS else ["*.py"]


@dataclass(frozen=True)
class Served:
    """Where the server is, and what a caller needs to be let in."""

    target: str
    token: str
    certificate: Path


@pytest.fixture(scope="session")
def environments() -> Path:
    assert ENVIRONMENTS is not None
    return Path(ENVIRONMENTS)


@pytest.fixture(scope="session")
def models(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose probabilities the policy withholds, and one with two versions."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(runs / "tiny", folder / "plain")
    shutil.copytree(runs / "private", folder / "private" / "1")
    shutil.copytree(runs / "private", folder / "private" / "2")
    return folder


@pytest.fixture(scope="session")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("secrets")
    certificate, key = write_certificate(folder)
    token, digest = new_token()
    principals = folder / "principals.toml"
    principals.write_text(
        f'[[principal]]\nname = "all"\nroles = ["predict", "models"]\n'
        f'tokens = [{{ sha256 = "{digest}" }}]\n'
    )
    options = {
        "--models": models,
        "--listen": "127.0.0.1:0",
        "--principals": principals,
        "--tls-certificate": certificate,
        "--tls-key": key,
    }
    command = [Path(sys.executable).with_name("attnpriv-server")]
    command += [Path(word) for option in options.items() for word in option]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        try:
            yield Served(line.removeprefix("listening on ").strip(), token, certificate)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    assert process.returncode == 0


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that 127.0.0.1 signed for itself, and its key."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "interop")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private_key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(private_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path, key = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(certificate.public_bytes(pem))
    key.write_bytes(
        private_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path, key

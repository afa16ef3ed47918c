"""The signing key of a workstation: ed25519, one file, readable by its owner only.

The private key stays in the user's configuration folder; each record folder gets the
public key as ``signing_key.pub``. ``lmd doctor --make-key`` or the first run makes it.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from controller.errors import RecordError

PUBLIC_KEY_FILE = "signing_key.pub"


def key_path() -> Path:
    """``$XDG_CONFIG_HOME/lmd/signing.key``, by default in ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    return root / "lmd" / "signing.key"


def make_key(path: Path | None = None) -> Path:
    """Make a new key file with mode 600 and return its path.

    An existing key is never overwritten (records signed with it must stay explainable):
    RecordError names the file.
    """
    path = path or key_path()
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, pem)
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(part, path)  # fails when the name is taken, unlike rename
        finally:
            part.unlink()
    except FileExistsError:
        raise RecordError(
            f"{path}: a signing key is already there; move it away to make another"
        ) from None
    except OSError as exc:
        raise RecordError(f"{path}: signing key cannot be written ({exc.strerror})") from None
    return path


def load_key(path: Path | None = None) -> Ed25519PrivateKey:
    """Read the key. Raises RecordError: missing, readable by others, not an ed25519 key."""
    path = path or key_path()
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise RecordError(
                f"{path}: signing key has mode {mode:03o}, others may read it; "
                f"type: chmod 600 {path}"
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as exc:
        raise RecordError(f"{path}: signing key cannot be read ({exc.strerror})") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RecordError(f"{path}: not an unencrypted PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RecordError(f"{path}: not an ed25519 key")
    return key


def load_or_make_key(path: Path | None = None) -> Ed25519PrivateKey:
    """The workstation's key, made at first use."""
    path = path or key_path()
    if not path.exists():
        try:
            make_key(path)
        except RecordError:
            if not path.exists():  # else another process was first: take its key
                raise
    return load_key(path)


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The public key as stored in the record folder."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(key: Ed25519PublicKey) -> str:
    """Short name of a key: the first 16 hex digits of the sha256 of its 32 bytes."""
    return hashlib.sha256(public_raw(key)).hexdigest()[:16]


def parse_public(pem: bytes, origin: str) -> Ed25519PublicKey:
    """A public key from PEM. Raises RecordError naming ``origin``."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RecordError(f"{origin}: not a PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise RecordError(f"{origin}: not an ed25519 key")
    return key


def signature_holds(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` over ``data`` was made with this key."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True

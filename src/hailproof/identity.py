"""Who a node is: an Ed25519 key, kept in a file that only its owner can read."""

import hmac
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, final

from hailproof.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_LONGEST_FILE = 16384


def _library() -> None:
    """Makes sure that the library that signs is there.

    Raises:
        ConfigError: If it is not.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Keys and signatures need the package cryptography; install it with pip install 'hailproof[swarm]'."
        ) from error


@final
class Identity:
    """A node's private key.

    Args:
        private: The key.

    Attributes:
        key: The 32 bytes of the public key, by which others know the node.
    """

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private
        self.key: bytes = private.public_key().public_bytes_raw()

    @classmethod
    def new(cls) -> "Identity":
        """Makes a key from the system's randomness."""
        _library()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of_seed(cls, seed: bytes) -> "Identity":
        """The key of 32 secret bytes; tests and simulations use it.

        Raises:
            ConfigError: If there are not 32 of them.
        """
        _library()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != KEY_BYTES:
            raise ConfigError(f"A seed of {len(seed)} bytes makes no Ed25519 key; give {KEY_BYTES}.")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Reads a key file.

        Raises:
            ConfigError: If it is missing, others can read it, or it holds no Ed25519 key.
        """
        _library()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            with path.open("rb") as file:
                mode, data = os.fstat(file.fileno()).st_mode, file.read(_LONGEST_FILE)
        except OSError as error:
            raise ConfigError(
                f"The key file {path} cannot be read ({error.strerror}); make one with: hailproof keygen {path}"
            ) from error
        if mode & 0o077:
            raise ConfigError(
                f"The key file {path} can be read by others (mode {mode & 0o777:o}); set it with: chmod 600 {path}"
            )
        try:
            private = load_pem_private_key(data, password=None)
        except Exception as error:  # the library raises many kinds, some of them not of its own making
            raise ConfigError(
                f"{path} is no unencrypted private key in PEM; make one with: hailproof keygen PATH"
            ) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(f"{path} holds a key of another kind than Ed25519; make one with: hailproof keygen PATH")
        return cls(private)

    @property
    def name(self) -> str:
        """The public key in 64 hexadecimal digits: what others list."""
        return self.key.hex()

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature; the same data has one signature."""
        return self._private.sign(data)

    def secret(self, *labels: str | int) -> bytes:
        """32 bytes that only this key's owner can derive, always the same for the same labels."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        raw = self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        message = b"".join(len(part).to_bytes(4, "big") + part for part in (str(label).encode() for label in labels))
        return hmac.digest(raw, b"hailproof secret\0" + message, "sha256")

    def seed(self, *labels: str | int) -> int:
        """A seed that only this key's owner can derive, in [0, 2**63)."""
        return int.from_bytes(self.secret(*labels)[:8], "big") >> 1

    def save(self, path: Path) -> Path:
        """Writes the key to a file of mode 0600, and its public part beside it with the ending ``.pub``.

        Returns:
            The file of the public part.

        Raises:
            ConfigError: If one of the files exists or cannot be written; nothing is overwritten.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = path.with_name(path.name + ".pub")
        if os.path.lexists(public):
            raise ConfigError(f"{public} exists, and a key is never overwritten; choose another path.")
        _create(path, pem, 0o600)
        _create(public, f"{self.name}\n".encode(), 0o644)
        return public


def _create(path: Path, data: bytes, mode: int) -> None:
    """Writes a new file.

    Raises:
        ConfigError: If it exists or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists, and a key is never overwritten; choose another path.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another path.") from error


def parse_key(text: str) -> bytes:
    """The bytes of a public key that is written as 64 hexadecimal digits.

    Raises:
        ConfigError: If it is none.
    """
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"'{text:.80}' is no public key; give 64 hexadecimal digits, as 'hailproof keygen' shows.")
    return key


def is_placeholder(key: bytes) -> bool:
    """Whether a public key was not made but written: of bytes that are nearly all the same, as in an example.

    A key that is made at random is none, but for 1 in 10^36.
    """
    return len(set(key)) < 8


@lru_cache(maxsize=4096)
def _public(key: bytes) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(key)


def is_signed(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the owner of a public key signed some data; whatever cannot be checked is not signed."""
    from cryptography.exceptions import InvalidSignature

    try:
        _public(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True

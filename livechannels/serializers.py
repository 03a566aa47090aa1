"""How a Channels message becomes bytes: a serializer, and encryption if keys are given. No I/O."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from .exceptions import ConfigurationError


class Serializer(NamedTuple):
    """`dumps` gives bytes and raises TypeError or ValueError for what it cannot carry; `loads` is its inverse."""

    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


class SerializerRegistry:
    """Serializers by name, for the option `serializer_format`; projects may register their own."""

    def __init__(self) -> None:
        self._known: dict[str, Serializer] = {}

    def register(self, name: str, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
        """Make `name` a legal `serializer_format`."""
        self._known[name] = Serializer(dumps, loads)

    def get(self, name: str) -> Serializer:
        try:
            return self._known[name]
        except KeyError:
            known = ", ".join(sorted(self._known))
            raise ConfigurationError(
                f"serializer_format {name!r} is not registered; known are {known}. "
                "Register your own with livechannels.serializers.registry.register(name, dumps, loads)."
            ) from None


def _json_bytes(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"__bytes__": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def _json_object(value: dict[str, Any]) -> Any:
    if len(value) == 1 and "__bytes__" in value:
        return base64.b64decode(value["__bytes__"])
    return value


def _json_dumps(message: Any) -> bytes:
    return json.dumps(message, default=_json_bytes, separators=(",", ":")).encode()


def _json_loads(raw: bytes) -> Any:
    return json.loads(raw, object_hook=_json_object)


_msgpack_encoder = msgspec.msgpack.Encoder()
_msgpack_decoder = msgspec.msgpack.Decoder()

registry = SerializerRegistry()
registry.register("msgpack", _msgpack_encoder.encode, _msgpack_decoder.decode)
registry.register("json", _json_dumps, _json_loads)


class Codec:
    """Encodes messages with one serializer; with keys, everything that leaves the process is encrypted.

    The first key encrypts, all keys decrypt, so that keys can be rotated. `seal` and `unseal` are the identity
    without keys; `unseal` raises ValueError for a text that no key opens.
    """

    def __init__(self, serializer: str = "msgpack", keys: Sequence[str | bytes] = ()) -> None:
        self.dumps, self.loads = registry.get(serializer)
        self.seal: Callable[[bytes], bytes] = bytes
        self.unseal: Callable[[bytes], bytes] = bytes
        if keys:
            self._use_keys(keys)

    def _use_keys(self, keys: Sequence[str | bytes]) -> None:
        try:
            from cryptography.fernet import Fernet, InvalidToken, MultiFernet
        except ImportError:
            raise ConfigurationError(
                'symmetric_encryption_keys needs the "cryptography" package: pip install "livechannels[crypto]".'
            ) from None

        def derive(key: str | bytes) -> Fernet:
            raw = key.encode() if isinstance(key, str) else key
            return Fernet(base64.urlsafe_b64encode(hashlib.sha256(raw).digest()))

        box = MultiFernet([derive(key) for key in keys])

        def unseal(token: bytes) -> bytes:
            try:
                return box.decrypt(token)
            except InvalidToken:
                raise ValueError("no key in symmetric_encryption_keys opens this message") from None

        self.seal = box.encrypt
        self.unseal = unseal

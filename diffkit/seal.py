"""A checksum inside a safetensors file, to notice later that a bit of it has changed."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

KEY = "checksum"  # in the file's own metadata, so that weights saved over it cannot leave it behind


def seal(path: Path) -> None:
    """Write a checksum of names, shapes and numbers into a safetensors file."""
    header, numbers = _parts(path)
    header["__metadata__"] = header.get("__metadata__", {}) | {KEY: _digest(header, numbers)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers start at a multiple of 8 bytes
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def is_as_sealed(path: Path) -> bool:
    """Whether a safetensors file is as it was sealed; one that never was counts as good."""
    header, numbers = _parts(path)
    sealed = header.get("__metadata__", {}).get(KEY)
    return sealed is None or sealed == _digest(header, numbers)


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """What describes the tensors, and their bytes. Format: 8 bytes with the length of the JSON that follows."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def _digest(header: dict[str, Any], numbers: bytes) -> str:
    described = {name: place for name, place in header.items() if name != "__metadata__"}
    digest = blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16)
    digest.update(numbers)
    return digest.hexdigest()

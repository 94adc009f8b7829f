"""SHA-256 digests of values, in hexadecimal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from undiffuse.regular_files import open_regular


def sha256_of(*parts: Any) -> str:
    """The digest of the concatenation of texts (as UTF-8) and objects with a buffer, such as bytes and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The digest of a file."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical(value: Any) -> str:
    """The canonical JSON text of a value."""
    return json.dumps(value, sort_keys=True)

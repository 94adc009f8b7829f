"""SHA-256 digests of values, in hexadecimal."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def sha256_of(*parts: Any) -> str:
    """The digest of texts (as UTF-8) and of what has a buffer, such as bytes and arrays, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def canonical(value: Any) -> str:
    """The JSON text of a value, the same for equal values."""
    return json.dumps(value, sort_keys=True)

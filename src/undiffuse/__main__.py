"""`python -m undiffuse`: the same as the command `undiffuse`."""

from __future__ import annotations

import sys

from undiffuse.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""The command `undiffuse`, also `python -m undiffuse`: an interruption is quiet from the first moment on."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line and returns its exit code."""
    try:
        from undiffuse import cli

        return cli.main()
    except KeyboardInterrupt:
        print("undiffuse: interrupted", file=sys.stderr or sys.stdout)
        return 130


if __name__ == "__main__":
    sys.exit(main())

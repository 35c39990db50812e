"""``python -m darkit.train``: the command ``darkit train``."""

from __future__ import annotations

import sys

from darkit.cli.train import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m darkit.train``: the command ``darkit train``."""

from __future__ import annotations

import sys

from darkit.cli.main import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))

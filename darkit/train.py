"""``python -m darkit.train``: the command ``darkit train``."""

from __future__ import annotations

import sys

from darkit.cli.loading import own_process
from darkit.cli.main import train

if __name__ == "__main__":
    own_process()
    sys.exit(train(sys.argv[1:]))

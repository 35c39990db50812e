"""A training of ``darkit verify-resume``: as ``python -m darkit.train``, and it records its batches."""

import sys
from pathlib import Path

from darkit.cli.train import main
from darkit.engine.callbacks.record import RecordBatches

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], callbacks=[RecordBatches(Path(sys.argv[1]))]))

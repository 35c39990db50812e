"""``python -m darkit`` is ``darkit``."""

import sys

from darkit.cli.main import main

sys.exit(main())

"""`python -m compensate`: the command line."""

from __future__ import annotations

import sys

from compensate.cli import main

sys.exit(main(name="python -m compensate"))

"""``python -m embgeom`` is the command ``embgeom``."""

import sys

from embgeom.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

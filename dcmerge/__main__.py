"""``python -m dcmerge``."""

import sys

from dcmerge.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m diffkit` is the command `diffkit`; `accelerate launch -m diffkit` runs it on several devices."""

import sys

from diffkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

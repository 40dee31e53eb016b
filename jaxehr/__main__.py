"""`python -m jaxehr`: the command, where scripts are not on the path."""

import sys

from jaxehr.cli import main

if __name__ == "__main__":
    sys.exit(main())

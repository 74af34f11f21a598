"""`python -m mlxc` is the command `mlxc`."""

import sys

from mlxc.cli import main

sys.exit(main())

"""The command line: ``python -m skqfair``."""

import sys

from skqfair.audit import main

sys.exit(main())

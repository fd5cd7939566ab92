"""`python -m kiki_agent.kernels MODULE...`: compile the kernels of these modules into the on-disk cache."""

import os
import sys

from kiki_agent.kernels.compile import load_compiled

if hasattr(os, "nice"):
    os.nice(10)
sys.exit(1 if load_compiled(sys.argv[1:]) else 0)

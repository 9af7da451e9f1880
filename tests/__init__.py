"""Tests mirror the package's folders; `oracles` holds what they compare with, `helpers` what they share."""

import os

# OpenMP reads these when it is loaded. Waiting threads that spin slow down whatever else runs. Workers share
# the cores and take one thread each: tests that are about threads ask for more by number.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

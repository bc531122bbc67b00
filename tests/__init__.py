"""The tests. Each process of them uses one thread for linear algebra: six share two cores, and threads wait by spinning."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

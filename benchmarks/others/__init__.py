"""embgeom beside other libraries: who is measured, at what, and what becomes of the numbers.

problem      what is asked: the matrix, the lists of neighbors, the second model
contender    who answers, and the question a case puts to all of them
knn, lle, dimension, similarity, imports, alternating
             the cases, each with its contenders and the float64 reference that checks them
blas         plain matrix products by the BLAS that embgeom itself uses
child        one measurement, in a process of its own
rounds       all measurements of a case, in alternating rounds
goals        what is hoped for, as ratios of medians
record       the JSON: what was measured where, merged and saved
table        the Markdown
"""

import sys
from pathlib import Path

# The oracles and their tolerances. At the end, for tests/ has a conftest.py as benchmarks/ has.
sys.path.append(str(Path(__file__).resolve().parents[2]))

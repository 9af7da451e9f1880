"""embgeom beside other libraries: who is measured, at what, and how the numbers are recorded and shown.

problem      the matrix, the lists of neighbors, the second model
contender    one way to compute something, and the question that a case puts to all of them
knn, lle, dimension, similarity, alternating, study, runs, threads
             cases, each with its contenders and the float64 reference that checks them
cases        all cases in order, and the time of an import
blas         plain matrix products by the BLAS that embgeom itself uses
child        one measurement, in a process of its own
usage        memory and CPU time of a process
rounds       all measurements of a case, in alternating rounds
record       the JSON: what was measured where, merged and saved
table        the Markdown
"""

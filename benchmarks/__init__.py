"""What embgeom costs, and how well its maps steer. Run everything in the repository's root.

kernels      times of each kernel over a grid of sizes, and peak memory:
             python -m pytest benchmarks/kernels, python -m benchmarks.kernels.peak_memory
compare      embgeom beside other libraries: python -m benchmarks.compare
growth       how costs grow, and what larger vocabularies will take: python -m benchmarks.growth
steering     whether transferred vectors steer, and the cost of fitting a map:
             python -m benchmarks.steering, python -m benchmarks.steering.map_fit
coverage     how often the confidence intervals hold what they should: python -m benchmarks.coverage
results      what these programs measured, as JSON and Markdown
"""

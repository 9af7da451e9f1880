"""How the cost of each kernel grows: what is measured, what is fitted, and how it is shown.

kernels      the kernels, their work by formula, and the points at which they are timed
fits         exponents, and the costs that they and the rates predict for current models
pages        Markdown and SVG
"""

"""How the cost of each kernel grows: what is measured, what is fitted, and how it is shown.

kernels      the kernels, their work by formula, and the points at which they are timed
pages        Markdown and SVG
__main__     the axes, exponents fitted to times, and costs that the rates predict for current models
"""

"""How the cost of each kernel grows: what is measured, what is fitted, and how it is shown.

kernels      the kernels, their work by formula, and the points at which they are timed
fits         exponents, and what they and the rates foretell for models of today
pages        Markdown and SVG
"""

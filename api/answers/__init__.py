"""Answers: `response` puts one together, of the figures in `summary` and the `rows`, in a
`bounded_file`.
"""

"""What is answered to an upload: `response` puts it together from `summary` and `rows`, in a
`bounded_file`.
"""

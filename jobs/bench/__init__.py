"""Speed and memory, measured against naive forms of the same work, in one run: `python -m
jobs.bench`.
"""

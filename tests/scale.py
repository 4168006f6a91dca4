"""The size of kills, fuzz, soaks and calibrations: a tenth in `make test`, whole in `make
test-long`.
"""

whole = False  # conftest.py sets it before any test module is imported


def scaled(number: int) -> int:
    """`number` of rounds, rows or seconds where the run is a long one, else a tenth of it, at least
    1.
    """
    return number if whole else max(1, number // 10)

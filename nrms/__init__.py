"""A news recommender: trains from Parquet, scores every night, serves uploads."""

__version__ = "0.1.0"

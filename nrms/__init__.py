"""A news recommender: trains from Parquet, scores every night, serves uploads."""

__version__ = "0.2.0.dev0"

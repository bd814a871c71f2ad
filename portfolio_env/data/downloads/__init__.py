"""Bars from exchanges and from Yahoo, kept in a store of Parquet files."""

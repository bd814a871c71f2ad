"""Reports on a source of bars: data quality, and an exploration in figures."""

"""Data set formats: each one yields `Sample`s and the packed `Annotations` behind them."""

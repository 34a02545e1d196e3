"""Metrics: they see ground truth and predictions as arrays, never a model or a loader."""

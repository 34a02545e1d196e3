"""Data sets and weights from the internet."""

"""What `scripts/benchmark.py` measures, and what it found (results.md)."""

"""Trained detectors as files for other programs: written, opened, and checked against PyTorch."""

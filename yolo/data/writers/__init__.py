"""Data set formats written: for each one that a detector's config names, what reads back the same.

Boxes come back exactly as float32, for numbers are written with as many digits as that takes.
"""

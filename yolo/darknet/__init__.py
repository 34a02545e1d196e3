"""Darknet's files: weights and cfg, read and written from lists of layer records."""

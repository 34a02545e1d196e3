"""Necks: mix an encoder's maps across scales."""

"""Heads: turn a neck's maps into the raw predictions that a coder decodes."""

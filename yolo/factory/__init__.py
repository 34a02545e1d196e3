"""The composition root: a config becomes objects here, nowhere else, and is not changed."""

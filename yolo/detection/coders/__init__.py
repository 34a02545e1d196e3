"""Raw maps to boxes and back: the one home of each generation's box parametrisation."""

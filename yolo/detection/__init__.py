"""From raw maps to boxes and losses."""

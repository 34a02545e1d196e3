"""Programs around the core: each is a room of its own."""

"""How weights move: optimizers, and schedules of their learning rate."""

"""Which truth owns which anchor or cell: pure functions, no gradients."""

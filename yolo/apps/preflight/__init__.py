"""What can be known to spoil a training before it begins, looked for from the cheapest to the dear.

A stage is a function from a `Flight` to an `Outcome` in a file of its own; `stages.STAGES` lists
them in their order.
"""

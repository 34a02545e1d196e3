"""The loop: training, evaluation, checkpoints, several devices. It receives built objects."""

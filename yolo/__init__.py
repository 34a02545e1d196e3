"""YOLOv1, v2 and v3 in PyTorch: one YAML file describes a detector, its data and its training."""

__version__ = "0.1.0"

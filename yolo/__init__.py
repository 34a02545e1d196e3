"""YOLOv1, v2 and v3 in PyTorch: one YAML file describes a detector, its data and its training."""

import os

__version__ = "0.1.0"

# Threads of OpenMP wait for each other by spinning, 300,000 turns unless told otherwise. Where
# another process wants the same cores, that slows a training on the CPU down several times; 1,000
# turns cost an idle machine nothing. It is read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

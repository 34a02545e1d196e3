"""YOLOv1, v2 and v3 in PyTorch: one YAML file describes a detector, its data and its training."""

import os

__version__ = "0.1.0"

# Threads that wait for each other sleep instead of spinning. OpenMP reads this when torch is loaded;
# where another process wants the same cores, spinning slows a CPU training down several times.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

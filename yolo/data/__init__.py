"""From files on disk to batches: annotations, images, augmentation, sample order, loaders."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network

"""From files on disk to batches: annotations, images, augmentation, sample order, loaders."""

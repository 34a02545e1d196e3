"""The records that the parts exchange: samples, batches, targets and detections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its truth."""

    image: np.ndarray  # uint8 (H, W, 3), RGB
    boxes_xyxy_px: np.ndarray  # float32 (N, 4), in pixels of `image`
    labels: np.ndarray  # int64 (N,), contiguous class indices
    ignored: np.ndarray  # bool (N,), regions without anchor and loss (COCO crowd, VOC difficult)
    image_id: int  # the data set's own
    original_size_hw: tuple[int, int]  # of the image on disk, in pixels


@dataclass(frozen=True, slots=True)
class Targets:
    """The truth of a batch, packed over its images in their order.

    The two numbers are known on the host, so that padding to the largest number of boxes and
    checking them needs no synchronisation with a GPU.
    """

    boxes_cxcywh_norm: Tensor  # float32 (N, 4), relative to the network's input, 0..1
    labels: Tensor  # int64 (N,)
    image_index: Tensor  # int64 (N,), the image of the batch that a box lies in, ascending
    ignored: Tensor  # bool (N,)
    max_per_image: int  # the largest number of boxes in one image
    is_finite: bool | None = None  # whether all boxes are; None is found out, copies keep it

    def __post_init__(self) -> None:
        if self.is_finite is None:
            object.__setattr__(self, "is_finite", bool(self.boxes_cxcywh_norm.isfinite().all()))

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Targets:
        """Pack the truth of ``samples``; the frame is each sample's own image."""
        counts = [len(sample.labels) for sample in samples]
        sizes_wh = np.array([sample.image.shape[1::-1] for sample in samples], np.float32)
        boxes_xyxy_px = np.concatenate([sample.boxes_xyxy_px for sample in samples])
        xyxy = (boxes_xyxy_px / np.tile(np.repeat(sizes_wh, counts, axis=0), 2)).astype(np.float32)
        low, high = xyxy[:, :2], xyxy[:, 2:]
        return cls(
            boxes_cxcywh_norm=torch.from_numpy(np.concatenate([(low + high) / 2, high - low], 1)),
            labels=torch.from_numpy(np.concatenate([s.labels for s in samples]).astype(np.int64)),
            image_index=torch.from_numpy(np.repeat(np.arange(len(samples)), counts)),
            ignored=torch.from_numpy(np.concatenate([s.ignored for s in samples]).astype(bool)),
            max_per_image=max(counts, default=0),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Targets:
        return self._copied(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Targets:
        """Move to page-locked memory, for copies that overlap with computing."""
        return self._copied(Tensor.pin_memory)

    def _copied(self, copy: Callable[[Tensor], Tensor]) -> Targets:
        names = ("boxes_cxcywh_norm", "labels", "image_index", "ignored")
        tensors: dict[str, Any] = {name: copy(getattr(self, name)) for name in names}
        return replace(self, **tensors)


@dataclass(frozen=True, slots=True)
class GridMatches:
    """Raw outputs at the places with and without a truth; M boxes of all maps, T truths.

    P pairs of a truth and a box that may learn it: as many as truths where each has one place.
    """

    objectness: Tensor  # float32 (M,), the confidence that there is an object, of every box
    owned: Tensor  # bool (M,), whether a truth owns the box
    class_logits: Tensor  # float32 (P, K), the classes' raw numbers at each pair's place
    labels: Tensor  # int64 (P,)
    counted: Tensor  # bool (P,), the pairs that own their place
    placed: Tensor  # bool (T,), the truths that own a place
    dropped: Tensor  # bool (T,), the truths that own none though they are not ignored


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size with their truth, as the network gets them.

    Ids and sizes, which are for undoing the letterbox, stay on the host.
    """

    images: Tensor  # uint8 (B, 3, S, S), RGB, in channels-last memory
    targets: Targets
    image_ids: Tensor  # int64 (B,), the data set's own
    original_sizes_hw: Tensor  # int64 (B, 2), in pixels on disk

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Batch:
        """Stack samples whose images share one size.

        The stacked (B, H, W, 3) array is only viewed as (B, 3, H, W): channels-last for nothing.
        """
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        return cls(
            images=images.permute(0, 3, 1, 2),  # (B, H, W, 3) -> (B, 3, H, W)
            targets=Targets.from_samples(samples),
            image_ids=torch.tensor([sample.image_id for sample in samples]),
            original_sizes_hw=torch.tensor([sample.original_size_hw for sample in samples]),
        )

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Batch:
        """Copy what the network and the loss need; asynchronously from page-locked memory."""
        images = self.images.to(device, non_blocking=True)
        return replace(self, images=images, targets=self.targets.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Move to page-locked memory (called by the loader)."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections of one image, the best score first."""

    boxes_xyxy_px: Tensor  # float32 (N, 4), in pixels of the image named by the producer
    scores: Tensor  # float32 (N,), objectness times class probability
    labels: Tensor  # int64 (N,)

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: torch.device | str) -> Detections:
        return Detections(
            self.boxes_xyxy_px.to(device), self.scores.to(device), self.labels.to(device)
        )

    def rows(self) -> Iterator[tuple[list[float], float, int]]:
        """Box, score and label of each."""
        columns = (self.boxes_xyxy_px, self.scores, self.labels)
        return zip(*(column.tolist() for column in columns), strict=True)

    def above_own(self, thresholds: Sequence[float]) -> Detections:
        """Keep the scores of at least the threshold of their label."""
        kept = self.scores >= self.scores.new_tensor(thresholds)[self.labels]
        return Detections(self.boxes_xyxy_px[kept], self.scores[kept], self.labels[kept])

    def above(self, threshold: float) -> Detections:
        """Keep the scores of at least ``threshold``."""
        count = int((self.scores >= threshold).sum())
        return Detections(self.boxes_xyxy_px[:count], self.scores[:count], self.labels[:count])

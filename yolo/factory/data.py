"""Data sets and their batches from a config."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from yolo.config import REPOSITORY_ROOT, Config, TaskConfig
from yolo.config.schema.classification import ClassDataset, ClassificationDataConfig
from yolo.config.schema.data import DataConfig, Dataset
from yolo.data.bad_images import ImagesOrEmpty, TolerantImages, check_bad_share
from yolo.data.disk_cache import DiskCache
from yolo.data.formats.class_folder import ClassFolderDataset
from yolo.data.formats.class_names import unique_names, with_label_map
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.detection import DetectionDataset, Key, first_names
from yolo.data.formats.shapes import CLASS_SHAPES, SHAPES, open_shapes
from yolo.data.formats.voc import VocDataset
from yolo.data.formats.voc_files import EVERY_XML
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.data.image_cache import MemoryCache
from yolo.data.loader import EvaluationBatches, ImageData, TrainingBatches
from yolo.data.sampling import RandomSizes, SampleOrder, StepSampler, repeat_factors
from yolo.data.transforms.augment import Augment, MixUp, Mosaic, WholeImageAugment
from yolo.errors import UserError
from yolo.train.distributed import Ranks

CACHE = REPOSITORY_ROOT / "data" / "cache"
"""What was read of many small files; may be deleted at any time."""

MAX_BAD_SHARE = "data.max_bad_share"

DATASETS: dict[str, Callable[..., DetectionDataset]] = {
    "class_folder": ClassFolderDataset,
    "class_shapes": partial(open_shapes, CLASS_SHAPES),
    "coco": CocoDataset,
    "csv_boxes": CsvBoxesDataset,
    "csv_list": YoloTextDataset,
    "shapes": partial(open_shapes, SHAPES),
    "voc": VocDataset,
    "yolo_text": YoloTextDataset,
}

SIZED_BY_HEADERS = frozenset({"coco", "csv_boxes", "csv_list", "voc", "yolo_text"})
"""They may read images' headers when they open, once, and are able to pass over the broken ones."""

_log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]


def build_dataset(config: TaskConfig, split: Split) -> DetectionDataset:
    """A data set, cut down by ``data.limit`` and, in training, by ``data.train_share``."""
    spec = getattr(config.data, split)
    if spec is None:
        raise UserError(f"data.{split} is not set in the config; set it, or choose another split")
    dataset = _open(spec, config, f"data.{split}")
    if config.data.limit is not None and split != "test":
        dataset = dataset.limit(config.data.limit)
    if split == "train" and config.data.train_share < 1:
        dataset = dataset.share(config.data.train_share, seed=config.seed)
    return dataset


def _open(spec: Dataset | ClassDataset, config: TaskConfig, place: str) -> DetectionDataset:
    """The fields of a data set's section are its constructor's arguments."""
    fields = {name: getattr(spec, name) for name in type(spec).model_fields if name != "type"}
    errors: list[UserError] = []
    if spec.type in SIZED_BY_HEADERS:
        fields["cache"] = CACHE
        if config.data.on_error == "skip":
            fields["on_bad_image"] = errors.append
    with _naming_path(spec, place):
        dataset = DATASETS[spec.type](**fields, class_names=config.data.class_names)
        if errors:
            share = config.data.max_bad_share
            check_bad_share(len(errors), len(dataset), share, errors[-1], MAX_BAD_SHARE)
            counts = f"{len(errors):,} of the {len(dataset):,} images of {place}"
            _log.warning("%s cannot be read; each is named where it is met", counts)
    return dataset


def image_set(config: Config, split: Split) -> str:
    """What VOC calls a split: the name of its list, or the split's own where there is no such."""
    spec = getattr(config.data, split)
    lists = {name.rpartition("/")[2] for name in spec.image_sets} if spec.type == "voc" else set()
    return lists.pop() if len(lists) == 1 and lists != {EVERY_XML} else split


def match_classes(
    dataset: DetectionDataset,
    split: Split,
    category_ids: Sequence[Key],
    class_names: Sequence[str],
    *,
    owner: str,
) -> DetectionDataset:
    """The data set with the labels of an owner: another one, a checkpoint. Names decide.

    A class that only the owner has is left out of the figures, as the metrics do. The training set
    of a checkpoint must have its classes, in its order and with its ids.
    """
    names = unique_names(class_names, category_ids)  # those of older checkpoints may recur
    if (dataset.category_ids, dataset.class_names) == (tuple(category_ids), tuple(names)):
        return dataset
    with naming(f"data.{split}"):
        matched = with_label_map(dataset, names, owner=owner)
        if split == "train":
            raise UserError(
                f"the classes of {dataset.source} are no longer those of {owner} with their ids "
                f"({first_names(names)}), in this order; restore them, or train anew"
            )
    lacking = [repr(name) for name in names if name not in dataset.class_names]
    if lacking:
        message = "data.%s: %s lacks %s of %s; what is of these classes is left out of its figures"
        _log.warning(message, split, dataset.source, first_names(lacking), owner)
    return matched


def build_training_batches(
    config: TaskConfig, dataset: DetectionDataset, ranks: Ranks
) -> TrainingBatches:
    """The endless stream of this rank's augmented micro-batches."""
    data, factors = config.data, None
    if data.sampling == "repeat_factor":
        factors = repeat_factors(dataset.annotations, data.repeat_factor_threshold)
    with naming("data.augment"):
        augment = _build_augment(config)
    return TrainingBatches(
        dataset=_training_images(data, dataset),
        augment=augment,
        sampler=StepSampler(
            order=SampleOrder(length=len(dataset), seed=config.seed, repeat_factors=factors),
            batch_size=config.training.batch_size,
            micro_batch_size=micro_batch_size(config, ranks),
            rank=ranks.rank,
            world_size=ranks.world_size,
            size_px=_size_px(config),
            mixes_until=augment.mixes_until,
        ),
        workers=count_workers(config, ranks),
        seed=config.seed,
        pin_memory=ranks.device.type == "cuda",
    )


def micro_batch_size(config: TaskConfig, ranks: Ranks) -> int:
    """This process's share of the batch, or the config's number where that is smaller."""
    training = config.training
    given, share = training.micro_batch_size, -(-training.batch_size // ranks.world_size)
    return share if given == "auto" else min(given, share)


@contextmanager
def _naming_path(spec: Dataset | ClassDataset, place: str) -> Iterator[None]:
    """Put the key of the path that a message names first before it, or the section's."""
    try:
        yield
    except UserError as error:
        message = str(error)
        named = [
            (message.index(str(path)), -len(str(path)), name, path)
            for name in type(spec).model_fields
            if isinstance(path := getattr(spec, name), Path) and str(path) in message
        ]
        if not named:
            raise UserError(f"{place}: {message}") from None
        *_, name, path = min(named)
        key = f"{place}.{name}"
        if not path.exists():
            message = f"{message.rstrip('.')}; {key}=PATH names another place."
        raise UserError(f"{key}: {message}") from None


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Put the YAML key before the message of what is built under this."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _size_px(config: TaskConfig) -> Callable[[int], int]:
    """The side of the images as a function of the optimizer step."""
    data, given = config.data, getattr(config.data, "multi_scale", None)  # detectors alone have it
    if given is None:
        return lambda step: data.image_size
    return RandomSizes(
        sides_px=tuple(range(given.min, given.max + 1, given.step)),
        every=given.every,
        seed=config.seed,
        until_step=given.until_step,
        final_px=data.image_size,
    )


def _training_images(
    data: DataConfig | ClassificationDataConfig, dataset: DetectionDataset
) -> ImageData:
    """The images as training loads them, from the files outwards.

    Cached are decoded images at the largest size of the training.
    """
    images: ImageData = dataset
    settings: dict[str, Any] = {"side_px": data.largest_side_px(), "setting": "data.cache"}
    limit_bytes = int(data.cache_limit_gb * 1e9)
    if data.cache == "ram":
        own_bytes = limit_bytes // local_processes()
        images = MemoryCache(dataset, limit_bytes=own_bytes, **settings)
    elif data.cache == "disk":
        folder = CACHE / "images"
        images = DiskCache(dataset, folder=folder, limit_bytes=limit_bytes, **settings)
    if data.on_error == "skip":
        images = TolerantImages(images, max_bad_share=data.max_bad_share, key=MAX_BAD_SHARE)
    return images


def local_processes() -> int:
    """Ranks that share this machine's memory and cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _build_augment(config: TaskConfig) -> Augment:
    data, steps = config.data, config.training.steps
    transforms = [transform.model_dump() for transform in data.augment]
    if isinstance(data, ClassificationDataConfig):
        return WholeImageAugment(transforms=transforms)
    mosaic, mixup = data.mosaic, data.mixup
    return Augment(
        transforms=transforms,
        min_visibility=data.min_visibility,
        mosaic=Mosaic(mosaic.p, steps - mosaic.off_for_last) if mosaic else None,
        mixup=MixUp(mixup.p, mixup.alpha, steps - mixup.off_for_last) if mixup else None,
    )


def build_evaluation_batches(
    config: TaskConfig, dataset: DetectionDataset, ranks: Ranks, *, image_size_px: int | None = None
) -> EvaluationBatches:
    """This rank's letterboxed batches of a whole data set."""
    images: ImageData = dataset
    if config.data.on_error == "skip":
        share = config.data.max_bad_share
        images = ImagesOrEmpty(dataset, max_bad_share=share, key=MAX_BAD_SHARE)
    return EvaluationBatches(
        dataset=images,
        image_size_px=image_size_px or config.data.image_size,
        batch_size=config.evaluation.batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        workers=count_workers(config, ranks),
        pin_memory=ranks.device.type == "cuda",
    )


def count_workers(config: TaskConfig, ranks: Ranks) -> int:
    """Loader processes of this rank; ``auto`` shares the cores among the ranks, at most 8 each.

    On a CPU the network itself uses all cores, and one process is enough to keep up with it.
    """
    if config.data.workers != "auto":
        return config.data.workers
    if ranks.device.type == "cpu":
        return 1
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    return max(1, min(8, cores // local_processes()))

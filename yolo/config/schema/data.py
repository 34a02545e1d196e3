"""The section `data`: which images, in which order, transformed how."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from yolo.config.schema.base import (
    AtLeastOne,
    ByType,
    FilePath,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    Seed,
    broken_rule,
    broken_rules,
    key,
)
from yolo.config.schema.transforms import Transform, default_augment

Side = Annotated[int, Field(ge=32, le=2048, multiple_of=32)]
ClassNames = Annotated[tuple[str, ...], Field(min_length=1)]
Limit = AtLeastOne | Annotated[tuple[int, ...], Field(min_length=1)]
"""A number of images, or which."""

UPRIGHT = (
    "Boxes were drawn on the images as their EXIF turns them upright, which annotation tools show, "
    "unless an annotated size tells that it was not so; false: on the pixels as they are stored, "
    "which are then never turned."
)


class CocoDatasetConfig(Section):
    type: Literal["coco"] = key("COCO's format: a json and a folder of images.")
    annotations: FilePath = key("The json with images, annotations, categories.")
    images: FilePath = key("The folder that the json's file names start from.")
    upright: bool = key(UPRIGHT, True)


class DrawnImages(Section):
    """Images that are drawn on first use."""

    type: str
    root: FilePath
    images: Annotated[int, Field(ge=1, le=10**6)] = key("Number of images.")
    split: Literal["train", "val", "test"] = key("Which of the disjoint splits.")
    seed: Seed = key("Another seed draws other images.", 0)


class ShapesDatasetConfig(DrawnImages):
    type: Literal["shapes"] = key("Drawn objects, generated on first use.")
    root: FilePath = key("Folder to generate into.", Path("data/shapes"))


class VocDatasetConfig(Section):
    type: Literal["voc"] = key("Pascal VOC: Annotations/*.xml, JPEGImages and ImageSets/Main.")
    root: FilePath = key("A VOCdevkit with VOC2007, VOC2012, ..., or one folder of that form.")
    image_sets: Annotated[tuple[str, ...], Field(min_length=1)] = key(
        "Lists of ImageSets/Main: '2007/trainval' in a VOCdevkit, 'train' in a folder; '*' takes "
        "every XML of Annotations."
    )
    upright: bool = key(UPRIGHT, True)


class YoloTextDatasetConfig(Section):
    type: Literal["yolo_text"] = key(
        "Darknet's: a text file for each image, lines of class cx cy w h relative to the image."
    )
    images: FilePath = key("The folder of images.")
    labels: FilePath = key("The folder of text files, named as the images.")
    names: FilePath | None = key(
        "YAML with `names`, or a name a line; null: data.class_names.", None
    )
    upright: bool = key(UPRIGHT, True)


class CsvListDatasetConfig(Section):
    type: Literal["csv_list"] = key(
        "A csv with a line `image,annotation` for each image; the annotations are text files as "
        "in yolo_text. Needs data.class_names."
    )
    list: FilePath = key("The csv file.")
    images: FilePath = key("The folder of images.")
    labels: FilePath = key("The folder of text files.")
    upright: bool = key(UPRIGHT, True)


class CsvBoxesDatasetConfig(Section):
    type: Literal["csv_boxes"] = key(
        "A csv with a line `image,xmin,ymin,xmax,ymax,class` for each box, in pixels; an image "
        "without boxes has one line with the other fields empty."
    )
    boxes: FilePath = key("The csv file.")
    images: FilePath = key("The folder of images.")
    upright: bool = key(UPRIGHT, True)


Dataset = Annotated[
    CocoDatasetConfig
    | ShapesDatasetConfig
    | VocDatasetConfig
    | YoloTextDatasetConfig
    | CsvListDatasetConfig
    | CsvBoxesDatasetConfig,
    ByType,
]


class MosaicConfig(Section):
    """Four images around a random point (YOLOv4, Bochkovskiy et al. 2020)."""

    p: Fraction = key("Probability that an image is joined with three others.", 1.0)
    off_for_last: NotNegative = key("Number of last steps without it.", 0)


class MixUpConfig(Section):
    """Two images blended, with the boxes of both (Zhang et al. 2018)."""

    p: Fraction = key("Probability that an image is blended with another.", 0.1)
    alpha: Positive = key("The weight is drawn from Beta(alpha, alpha).", 8.0)
    off_for_last: NotNegative = key("Number of last steps without it.", 0)


class MultiScaleConfig(Section):
    """One random size for all images of some steps (YOLO9000, section 2)."""

    min: Side = key("Smallest side of the model's input in pixels.", 320)
    max: Side = key("Largest side, which decides the memory.", 608)
    step: Side = key("Pixels from one size to the next.", 32)
    every: AtLeastOne = key("Steps that keep a size.", 10)
    until_step: AtLeastOne | None = key("From this step on the size is data.image_size.", None)

    @field_validator("max")
    @classmethod
    def _not_below_min(cls, largest: int, info: ValidationInfo) -> int:
        smallest = info.data.get("min")
        if smallest is not None and largest < smallest:
            raise broken_rule(f"must be at least data.multi_scale.min ({smallest})")
        return largest


class ImagesConfig(Section):
    """Data sets of any task, and what happens to their images on the way to the model."""

    train: Section
    val: Section
    test: Section | None
    class_names: ClassNames | None
    image_size: Side = key("Side of the model's input in pixels.", 416)
    limit: Limit | None = key("Only the first N images of train and val, or the listed ids.", None)
    train_share: PositiveFraction = key("Share of the training images to use.", 1.0)
    sampling: Literal["uniform", "repeat_factor"] = key(
        "'uniform' shows every image once per epoch, 'repeat_factor' those with rare classes more "
        "often (LVIS, Gupta et al. 2019).",
        "uniform",
    )
    repeat_factor_threshold: Positive = key(
        "Classes in a smaller share of the images are repeated (LVIS, appendix B).", 0.001
    )
    augment: tuple[Transform, ...] = key(
        "Training transforms in order, each {type, p, arguments}. Empty areas get the mean colour "
        "(124, 116, 104); Resize stretches to image_size, RandomResizedCrop and "
        "RandomSizedBBoxSafeCrop cut to it instead of letterboxing.",
        default_factory=lambda: default_augment("detect"),
    )
    workers: Annotated[int, Field(ge=0, le=512)] | Literal["auto"] = key(
        "Loader processes per device; 0 loads in the training process.", "auto"
    )
    cache: Literal["none", "ram", "disk"] = key(
        "Keep decoded training images, shrunk to the largest input size: in memory, or under "
        "data/cache. They are then resampled twice, so pixels differ slightly.",
        "none",
    )
    cache_limit_gb: Positive = key("Maximum size; other images are decoded each time.", 10.0)
    on_error: Literal["stop", "skip"] = key(
        "An image that cannot be read: 'stop' ends the run, 'skip' names it once; in training "
        "the next readable image takes its place, in evaluation an empty one.",
        "stop",
    )
    max_bad_share: Fraction = key("With 'skip', the run ends above this share of bad images.", 0.01)

    def sides_px(self) -> Sequence[int]:
        """The sides that the input has while training."""
        return (self.image_size,)

    def largest_side_px(self) -> int:
        """Of the input, while training and in evaluations."""
        return max(self.image_size, *self.sides_px())

    @model_validator(mode="after")
    def _augment_fits(self) -> "ImagesConfig":
        """A cut larger than the image would fail only when it fires."""
        smallest = min(self.sides_px())
        rule = f"must be at most {smallest}, the smallest side of the training images"
        broken = [
            (f"augment.{place}.{argument}", rule)
            for place, transform in enumerate(self.augment)
            for argument, needed in _least_sides_px(transform).items()
            if needed > smallest
        ]
        if broken:
            raise broken_rules(broken)
        return self

    @field_validator("class_names")
    @classmethod
    def _without_repeats(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = sorted(name for name, times in Counter(names or ()).items() if times > 1)
        if repeated:
            raise broken_rule(f"must not repeat a class: {', '.join(repeated[:9])}")
        return names


def _least_sides_px(transform: Transform) -> dict[str, float]:
    """By argument, the side in pixels that an image has to have."""
    given = transform.model_extra or {}
    if transform.p == 0:
        return {}
    if transform.type == "RandomCrop" and not given.get("pad_if_needed", False):
        return {argument: given[argument] for argument in ("height", "width")}
    if transform.type == "CoarseDropout":
        names = ("hole_height_range", "hole_width_range")
        ranges = {name: given.get(name, (0, 0)) for name in names}
        return {name: least for name, (least, most) in ranges.items() if most >= 1}
    return {}


class DataConfig(ImagesConfig):
    train: Dataset = key("The data set to train on.")
    val: Dataset = key("The data set to evaluate on while training.")
    test: Dataset | None = key("The data set of `--split test`, if any.", None)
    class_names: ClassNames | None = key(
        "Order of the classes, all of the data set's; null takes the json's order, that of a "
        "yolo_text's `names`, or alphabetical order of those in the XML files or the csv.",
        None,
    )
    min_visibility: Fraction = key("A box cut to a smaller share becomes an ignored region.", 0.1)
    mosaic: MosaicConfig | None = key("Join four images into one; null is off.", None)
    mixup: MixUpConfig | None = key("Blend two images; null is off.", None)
    multi_scale: MultiScaleConfig | None = key("Train at changing input sizes; null is off.", None)

    def sides_px(self) -> Sequence[int]:
        given = self.multi_scale
        if given is None:
            return super().sides_px()
        at_the_end = () if given.until_step is None else (self.image_size,)
        return (*range(given.min, given.max + 1, given.step), *at_the_end)

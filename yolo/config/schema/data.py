"""The section `data`: which images, in which order, transformed how."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from yolo.config.schema.base import (
    AtLeastOne,
    FilePath,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    Seed,
    broken_rule,
    broken_rules,
)
from yolo.config.schema.transforms import Transform, default_augment


class CocoDatasetConfig(Section):
    """Any data set in COCO's format."""

    type: Literal["coco"] = Field(description="A COCO json and a folder of images.")
    annotations: FilePath = Field(description="The json with images, annotations, categories.")
    images: FilePath = Field(description="The folder that the json's file names start from.")


class DrawnImages(Section):
    """Images that are drawn on first use."""

    type: str
    root: FilePath
    images: AtLeastOne = Field(description="Number of images.")
    split: Literal["train", "val", "test"] = Field(
        description="Which of the disjoint parts; each is generated on its own."
    )
    seed: Seed = Field(0, description="Another seed draws other images.")


class ShapesDatasetConfig(DrawnImages):
    """The embedded data set."""

    type: Literal["shapes"] = Field(description="Drawn objects, generated on first use.")
    root: FilePath = Field(Path("data/shapes"), description="Folder to generate into.")


class VocDatasetConfig(Section):
    """Pascal VOC, or any folder of the same form."""

    type: Literal["voc"] = Field(description="Annotations/*.xml, JPEGImages and ImageSets/Main.")
    root: FilePath = Field(
        description="A VOCdevkit with VOC2007, VOC2012, ..., or a folder that holds Annotations, "
        "JPEGImages and ImageSets itself."
    )
    image_sets: tuple[str, ...] = Field(
        min_length=1,
        description="Lists of ImageSets/Main: '2007/trainval' in a VOCdevkit, 'train' in a folder; "
        "'*' takes every XML of Annotations.",
    )


class YoloTextDatasetConfig(Section):
    """Darknet's text files."""

    type: Literal["yolo_text"] = Field(
        description="A text file for each image: class cx cy w h, relative to the image."
    )
    images: FilePath = Field(description="The folder of images.")
    labels: FilePath = Field(description="The folder of text files, named as the images.")
    names: FilePath | None = Field(
        None,
        description="YAML file with the class names under `names`; null takes data.class_names.",
    )


class CsvListDatasetConfig(Section):
    """A list of pairs."""

    type: Literal["csv_list"] = Field(
        description="A csv with a line `image,annotation` for each image; the annotations are "
        "text files as in yolo_text. Needs data.class_names."
    )
    list: FilePath = Field(description="The csv file.")
    images: FilePath = Field(description="The folder of images.")
    labels: FilePath = Field(description="The folder of text files.")


class CsvBoxesDatasetConfig(Section):
    """One table of boxes."""

    type: Literal["csv_boxes"] = Field(
        description="A csv with a line `image,xmin,ymin,xmax,ymax,class` for each box, in pixels; "
        "an image without boxes has one line with the other fields empty."
    )
    boxes: FilePath = Field(description="The csv file.")
    images: FilePath = Field(description="The folder of images.")


Side = Annotated[int, Field(ge=32, le=2048, multiple_of=32)]

Dataset = Annotated[
    CocoDatasetConfig
    | ShapesDatasetConfig
    | VocDatasetConfig
    | YoloTextDatasetConfig
    | CsvListDatasetConfig
    | CsvBoxesDatasetConfig,
    Field(discriminator="type"),
]


class MosaicConfig(Section):
    """Four images around a random point (YOLOv4, Bochkovskiy et al. 2020)."""

    p: Fraction = Field(1.0, description="Probability that an image is joined with three others.")
    off_for_last: NotNegative = Field(
        0, description="The last so many steps train on whole images again."
    )


class MixUpConfig(Section):
    """Two images blended, with the boxes of both (Zhang et al. 2018)."""

    p: Fraction = Field(0.1, description="Probability that an image is blended with another.")
    alpha: Positive = Field(
        8.0, description="The shares come from Beta(alpha, alpha): the larger, the more even."
    )
    off_for_last: NotNegative = Field(
        0, description="The last so many steps train on images of their own again."
    )


class MultiScaleConfig(Section):
    """One random size for all images of some steps (YOLO9000, section 2)."""

    min: Side = Field(320, description="Smallest side of the model's input in pixels.")
    max: Side = Field(608, description="Largest side, which decides the memory.")
    step: Side = Field(32, description="Pixels from one size to the next.")
    every: AtLeastOne = Field(10, description="Steps that keep a size.")
    until_step: AtLeastOne | None = Field(
        None, description="From this step on the size is data.image_size; null never stops."
    )

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
    class_names: tuple[str, ...] | None
    image_size: Side = Field(416, description="Side of the model's input in pixels.")
    limit: AtLeastOne | Annotated[tuple[NotNegative, ...], Field(min_length=1)] | None = Field(
        None,
        description="Use only the first N images of train and of val, or only the images with "
        "the listed ids; null uses all.",
    )
    train_share: PositiveFraction = Field(1.0, description="Share of the training images to use.")
    sampling: Literal["uniform", "repeat_factor"] = Field(
        "uniform",
        description="'uniform' shows every image once per epoch, 'repeat_factor' those with rare "
        "classes more often (LVIS, Gupta et al. 2019).",
    )
    repeat_factor_threshold: Positive = Field(
        0.001,
        description="Classes in a smaller share of the images than this are repeated "
        "(LVIS, Gupta et al. 2019, appendix B).",
    )
    augment: tuple[Transform, ...] = Field(
        default_factory=lambda: default_augment("detect"),
        description="Training transforms in order, each {type, p, arguments}. "
        "Empty areas get the mean colour (124, 116, 104); Resize stretches to image_size and "
        "RandomResizedCrop cuts to it instead of letterboxing.",
    )
    workers: NotNegative | Literal["auto"] = Field(
        "auto", description="Loader processes per device; 0 loads in the training process."
    )
    cache: Literal["none", "ram", "disk"] = Field(
        "none",
        description="Keep decoded training images, shrunk to the largest input size: in memory, "
        "or under data/cache. They are then resampled twice, so pixels differ slightly.",
    )
    cache_limit_gb: Positive = Field(
        10.0, description="Most space for the cached images; the rest is decoded each time."
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="An image that cannot be read: 'stop' ends the run, 'skip' names it once; in "
        "training the next readable image takes its place, in evaluation an empty one.",
    )
    max_bad_share: Fraction = Field(
        0.01, description="With on_error 'skip': the run ends above this share of bad images."
    )

    def smallest_side_px(self) -> int:
        """The smallest side of the input while training."""
        return self.image_size

    @model_validator(mode="after")
    def _augment_fits(self) -> "ImagesConfig":
        """A cut larger than the image would fail only when it fires."""
        smallest = self.smallest_side_px()
        rule = f"must be at most {smallest}, the smallest side of the training images"
        broken = [
            (f"augment.{place}.{key}", rule)
            for place, transform in enumerate(self.augment)
            for key, needed in _least_sides_px(transform).items()
            if needed > smallest
        ]
        if broken:
            raise broken_rules(broken)
        return self

    @field_validator("class_names")
    @classmethod
    def _without_repeats(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = sorted({name for name in names or () if (names or ()).count(name) > 1})
        if repeated:
            raise broken_rule(f"must not repeat a class: {', '.join(repeated)}")
        return names


def _least_sides_px(transform: Transform) -> dict[str, float]:
    """By argument, the side in pixels that an image has to have."""
    given = transform.model_extra or {}
    if transform.p == 0:
        return {}
    if transform.type == "RandomCrop" and not given.get("pad_if_needed", False):
        return {key: given[key] for key in ("height", "width")}
    if transform.type == "CoarseDropout":
        ranges = {key: given.get(key, (0, 0)) for key in ("hole_height_range", "hole_width_range")}
        return {key: least for key, (least, most) in ranges.items() if most >= 1}
    return {}


class DataConfig(ImagesConfig):
    """Data sets, and what happens to their images on the way to the model."""

    train: Dataset = Field(description="The data set to train on.")
    val: Dataset = Field(description="The data set to evaluate on while training.")
    test: Dataset | None = Field(None, description="The data set of `--split test`, if any.")
    class_names: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Order of the classes, all of the data set's; null takes the json's order, "
        "that of a yolo_text's `names`, or those found in the XML files or the csv by alphabet.",
    )
    min_visibility: Fraction = Field(
        0.1,
        description="A box of which a transform leaves a smaller share becomes an ignored region.",
    )
    mosaic: MosaicConfig | None = Field(
        None, description="Join four images into one; null trains on whole images."
    )
    mixup: MixUpConfig | None = Field(None, description="Blend two images; null is off.")
    multi_scale: MultiScaleConfig | None = Field(
        None, description="Vary the input size while training; null keeps data.image_size."
    )

    def smallest_side_px(self) -> int:
        """The smallest side of the input while training."""
        if self.multi_scale is None:
            return self.image_size
        in_the_end = [] if self.multi_scale.until_step is None else [self.image_size]
        return min([self.multi_scale.min, *in_the_end])

"""What a YAML of `task: classify` may say: an encoder is trained to tell what an image shows."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from yolo.config.schema.base import (
    AtLeastOne,
    BelowOne,
    FilePath,
    NotNegative,
    Section,
    Seed,
    Share,
)
from yolo.config.schema.data import ImagesConfig
from yolo.config.schema.encoders import Encoder
from yolo.config.schema.model import InitConfig
from yolo.config.schema.training import LoggingConfig, TrainingConfig
from yolo.config.schema.transforms import Transform

# Darknet's darknet53.cfg as Albumentations can say it: it scales the shorter side to 128 .. 448 px
# for a cut of 256 px, so the cut holds a third or more of a square image, and cuts of larger areas
# than the image are left out here.
DEFAULT_AUGMENT: tuple[dict[str, Any], ...] = (
    {"type": "RandomResizedCrop", "p": 1.0, "scale": [0.33, 1.0], "ratio": [0.75, 1.3333]},
    {"type": "HorizontalFlip", "p": 0.5},
    {
        "type": "ColorJitter",
        "p": 1.0,
        "brightness": [0.75, 1.3333],
        "contrast": [1.0, 1.0],
        "saturation": [0.75, 1.3333],
        "hue": [-0.1, 0.1],
    },
)


def default_augment() -> tuple[Transform, ...]:
    """The transforms of a config that names none."""
    return tuple(Transform.model_validate(transform) for transform in DEFAULT_AUGMENT)


class ClassifierConfig(Section):
    """encoder -> global average pooling -> one linear layer."""

    encoder: Encoder = Field(description="What is trained, for a detector to start from.")
    dropout: BelowOne = Field(
        0.0, description="Share of the pooled numbers that training leaves out."
    )
    init: InitConfig | None = Field(
        None,
        description="A trained classifier to start from; null starts from the encoder's weights.",
    )
    preprocessing: Literal["unit_range", "imagenet"] | None = Field(
        None,
        description="Input of the network: 'unit_range' is RGB / 255 (Darknet), 'imagenet' also "
        "takes ImageNet's mean and deviation; null is what the loaded weights were trained with.",
    )


class CrossEntropyConfig(Section):
    """Cross entropy over the classes."""

    type: Literal["cross_entropy"] = Field(
        "cross_entropy", description="Softmax and cross entropy."
    )
    label_smoothing: BelowOne = Field(
        0.0, description="Share of the truth that is spread evenly over all classes."
    )


class ClassFolderConfig(Section):
    """A folder of class folders, as ImageNet's."""

    type: Literal["class_folder"] = Field(description="One folder of images for each class.")
    root: FilePath = Field(description="The folder of the class folders.")


class ClassShapesConfig(Section):
    """The embedded data set for classifiers."""

    type: Literal["class_shapes"] = Field(
        description="A drawn object per image, as a folder of class folders, generated on first "
        "use."
    )
    root: FilePath = Field(Path("data/class_shapes"), description="Folder to generate into.")
    images: AtLeastOne = Field(description="Number of images, evenly over the classes.")
    split: Literal["train", "val", "test"] = Field(
        description="Which of the disjoint parts; each is generated on its own."
    )
    seed: Seed = Field(0, description="Another seed draws other images.")


ClassDataset = Annotated[ClassFolderConfig | ClassShapesConfig, Field(discriminator="type")]


class ClassificationDataConfig(ImagesConfig):
    """Data sets of labelled images, and what happens to them on the way to the model.

    Validation letterboxes an image, as detection does: the whole image is seen, none is cropped.
    """

    train: ClassDataset = Field(description="The data set to train on.")
    val: ClassDataset = Field(description="The data set to evaluate on while training.")
    test: ClassDataset | None = Field(None, description="The data set of `--split test`, if any.")
    class_names: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Order of the classes, the names of all class folders; null takes them by "
        "alphabet.",
    )
    image_size: int = Field(
        224, ge=32, le=2048, multiple_of=32, description="Side of the model's input in pixels."
    )
    limit: AtLeastOne | Annotated[tuple[NotNegative, ...], Field(min_length=1)] | None = Field(
        None,
        description="Use only N images of train and of val, the first ones of every class in "
        "turn, or only the images with the listed numbers; null uses all.",
    )
    augment: tuple[Transform, ...] = Field(
        default_factory=default_augment,
        description="Training transforms in order, each {type, p, arguments}. "
        "Without RandomResizedCrop or Resize the image is letterboxed, as in validation; empty "
        "areas get the mean colour (124, 116, 104).",
    )


class ClassificationEvaluationConfig(Section):
    """Scoring by the share of images whose class is among the best answers."""

    every: AtLeastOne = Field(description="Steps between evaluations; one more at the end.")
    share: Share = Field(1.0, description="Share of the validation images to evaluate on.")
    monitor: Literal["top1", "top5"] = Field("top1", description="The figure that chooses best.pt.")
    batch_size: AtLeastOne = Field(64, description="Images per forward pass.")
    pictures: NotNegative = Field(8, description="Images shown with prediction and truth.")


class ClassificationConfig(Section):
    """Training of a classifier, whose encoder a detector then starts from."""

    task: Literal["classify"] = Field(description="What is trained: a classifier of images.")
    seed: Seed = Field(0, description="Decides weights, sample order and augmentation.")
    model: ClassifierConfig = Field(description="The classifier.")
    loss: CrossEntropyConfig = Field(
        default_factory=lambda: CrossEntropyConfig.model_validate({}),
        description="What the classifier is punished for.",
    )
    data: ClassificationDataConfig = Field(
        description="Data sets, and how their images are prepared."
    )
    training: TrainingConfig = Field(description="The training loop.")
    evaluation: ClassificationEvaluationConfig = Field(description="Scoring on the validation set.")
    logging: LoggingConfig = Field(
        default_factory=lambda: LoggingConfig.model_validate({}),
        description="Lines of progress, and the folder of the runs.",
    )

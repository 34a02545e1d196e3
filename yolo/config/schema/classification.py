"""What a YAML of `task: classify` may hold: an encoder is trained as a classifier of images."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from yolo.config.schema.base import (
    AtLeastOne,
    BelowOne,
    FilePath,
    NotNegative,
    PositiveFraction,
    Section,
    Seed,
)
from yolo.config.schema.data import DrawnImages, ImagesConfig, Side
from yolo.config.schema.encoders import Encoder
from yolo.config.schema.model import InitConfig, Preprocessing
from yolo.config.schema.training import LoggingConfig, TrainingConfig
from yolo.config.schema.transforms import Transform, default_augment


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
    preprocessing: Preprocessing = None


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


class ClassShapesConfig(DrawnImages):
    """The embedded data set for classifiers."""

    type: Literal["class_shapes"] = Field(
        description="A drawn object per image, as a folder of class folders, generated on first "
        "use."
    )
    root: FilePath = Field(Path("data/class_shapes"), description="Folder to generate into.")


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
    image_size: Side = Field(224, description="Side of the model's input in pixels.")
    limit: AtLeastOne | Annotated[tuple[NotNegative, ...], Field(min_length=1)] | None = Field(
        None,
        description="Use only N images of train and of val, the first ones of every class in "
        "turn, or only the images with the listed numbers; null uses all.",
    )
    augment: tuple[Transform, ...] = Field(
        default_factory=lambda: default_augment("classify"),
        description="Training transforms in order, each {type, p, arguments}. "
        "Without RandomResizedCrop or Resize the image is letterboxed, as in validation; empty "
        "areas get the mean colour (124, 116, 104).",
    )


class ClassificationEvaluationConfig(Section):
    """Scoring by the share of images whose class is among the best answers."""

    every: AtLeastOne = Field(description="Steps between evaluations; one more at the end.")
    share: PositiveFraction = Field(
        1.0, description="Share of the validation images to evaluate on."
    )
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
        description="What the classifier is trained to minimise.",
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

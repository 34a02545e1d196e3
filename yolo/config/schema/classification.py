"""What a YAML of `task: classify` may hold: an encoder is trained as a classifier of images."""

from pathlib import Path
from typing import Annotated, Literal

from yolo.config.schema.base import (
    AtLeastOne,
    BelowOne,
    ByType,
    FilePath,
    NotNegative,
    PositiveFraction,
    Section,
    Seed,
    key,
)
from yolo.config.schema.data import ClassNames, DrawnImages, ImagesConfig, Limit, Side
from yolo.config.schema.encoders import Encoder
from yolo.config.schema.model import InitConfig, Preprocessing
from yolo.config.schema.training import LoggingConfig, TrainingConfig
from yolo.config.schema.transforms import Transform, default_augment


class ClassifierConfig(Section):
    """encoder -> global average pooling -> one linear layer."""

    encoder: Encoder = key("What is trained, for a detector to start from.")
    dropout: BelowOne = key("Share of the pooled numbers that training leaves out.", 0.0)
    init: InitConfig | None = key("A whole trained classifier to start from; null is none.", None)
    preprocessing: Preprocessing = None


class CrossEntropyConfig(Section):
    type: Literal["cross_entropy"] = key("Softmax and cross entropy.", "cross_entropy")
    label_smoothing: BelowOne = key("Share of the truth spread evenly over all classes.", 0.0)


class ClassFolderConfig(Section):
    type: Literal["class_folder"] = key("One folder of images for each class, as ImageNet's.")
    root: FilePath = key("The folder of the class folders.")


class ClassShapesConfig(DrawnImages):
    type: Literal["class_shapes"] = key("One drawn object per image, generated on first use.")
    root: FilePath = key("Folder to generate into.", Path("data/class_shapes"))


ClassDataset = Annotated[ClassFolderConfig | ClassShapesConfig, ByType]


class ClassificationDataConfig(ImagesConfig):
    """Validation letterboxes an image, as detection does: all of it is seen, nothing is cropped."""

    train: ClassDataset = key("The data set to train on.")
    val: ClassDataset = key("The data set to evaluate on while training.")
    test: ClassDataset | None = key("The data set of `--split test`, if any.", None)
    class_names: ClassNames | None = key("Order of all class folders; null is alphabetical.", None)
    image_size: Side = key("Side of the model's input in pixels.", 224)
    limit: Limit | None = key(
        "Use only N images of train and of val, the first ones of every class in turn, or only "
        "the images with the listed numbers; null uses all.",
        None,
    )
    augment: tuple[Transform, ...] = key(
        "Training transforms in order, each {type, p, arguments}. Without RandomResizedCrop or "
        "Resize the image is letterboxed, as in validation; empty areas get the mean colour "
        "(124, 116, 104).",
        default_factory=lambda: default_augment("classify"),
    )


class ClassificationEvaluationConfig(Section):
    """Scoring by the share of images whose class is among the best answers."""

    every: AtLeastOne = key("Steps between evaluations; one more at the end.")
    share: PositiveFraction = key("Share of the validation images to evaluate on.", 1.0)
    monitor: Literal["top1", "top5"] = key("The figure that chooses best.pt.", "top1")
    batch_size: AtLeastOne = key("Images per forward pass.", 64)
    pictures: NotNegative = key("Images shown with prediction and truth.", 8)


class ClassificationConfig(Section):
    """Training of a classifier, whose encoder a detector then starts from."""

    task: Literal["classify"] = key("What is trained: a classifier of images.")
    seed: Seed = key("Decides weights, sample order and augmentation.", 0)
    model: ClassifierConfig = key("The classifier.")
    loss: CrossEntropyConfig = key("What is minimised.", default_factory=CrossEntropyConfig)
    data: ClassificationDataConfig = key("Data sets, and how their images are prepared.")
    training: TrainingConfig = key("The training loop.")
    evaluation: ClassificationEvaluationConfig = key("Scoring on the validation set.")
    logging: LoggingConfig = key("Progress lines and run folders.", default_factory=LoggingConfig)

"""MobileNetV3 (https://arxiv.org/abs/1905.02244) as torchvision builds it."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision import models

from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import BATCH_NORM_MOMENTUM, IMAGENET


def mobilenet_v3_large() -> MobileNetV3:
    """Build MobileNetV3-Large with random weights: 40, 112 and 960 channels."""
    return MobileNetV3(
        features=models.mobilenet_v3_large(weights=None).features,
        last_layers=(6, 12, 16),
        out_channels=(40, 112, 960),
    )


def mobilenet_v3_small() -> MobileNetV3:
    """Build MobileNetV3-Small with random weights: 24, 48 and 576 channels."""
    return MobileNetV3(
        features=models.mobilenet_v3_small(weights=None).features,
        last_layers=(3, 8, 12),
        out_channels=(24, 48, 576),
    )


class MobileNetV3(Encoder):
    """Tables 1 and 2 of the paper, without pooling and classifier, read at strides 8, 16 and 32.

    ``features`` keeps torchvision's layers and names. Each map is the output of the last layer at
    its stride; at stride 32 that is the final 1x1 convolution, as in the classifier. The ImageNet
    normalisation stays without pretrained weights too, so that a checkpoint means the same input
    however its training began.

    Batch norm's running averages keep 0.9 of their past at each step, as everywhere in this
    project, instead of torchvision's 0.99: those lag hundreds of steps behind the weights, and a
    small data set, learnt by heart in training mode, is then not recognised in evaluation mode.

    Args:
        features: torchvision's ``features``.
        last_layers: index of the last layer at strides 8, 16 and 32.
        out_channels: channels of those layers.
    """

    preprocessing = IMAGENET

    def __init__(
        self,
        *,
        features: nn.Sequential,
        last_layers: tuple[int, int, int],
        out_channels: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.features = features
        self.last_layers = last_layers
        self.out_channels = out_channels
        for layer in features.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = BATCH_NORM_MOMENTUM

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> ``out_channels`` at strides 8, 16 and 32."""
        maps = []
        x = images
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.last_layers:
                maps.append(x)
        stride8, stride16, stride32 = maps
        return stride8, stride16, stride32

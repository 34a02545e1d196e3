"""Encoders as torchvision builds them: ResNet and MobileNetV3.

The layers and their names are torchvision's, so its weights fit. The ImageNet normalisation stays
without pretrained weights too, so that a checkpoint means the same input however its training
began. Batch norm's running averages move as everywhere here (``BATCH_NORM_MOMENTUM``).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchvision import models

from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import BATCH_NORM_MOMENTUM, IMAGENET


class ResNet(Encoder):
    """ResNet (https://arxiv.org/abs/1512.03385), table 1, read after conv3_x, conv4_x and conv5_x.

    Where torchvision puts the stride of a bottleneck on the 3x3 convolution, the paper has it on
    the first 1x1.
    """

    preprocessing = IMAGENET

    def __init__(
        self, build: Callable[..., models.ResNet], out_channels: tuple[int, int, int]
    ) -> None:
        super().__init__()
        network = build(weights=None)
        self.conv1, self.bn1, self.relu = network.conv1, network.bn1, network.relu
        self.maxpool = network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.out_channels = out_channels
        _set_momentum(self)

    def forward(self, images: Tensor) -> EncoderMaps:
        stride4 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        stride8 = self.layer2(stride4)
        stride16 = self.layer3(stride8)
        return stride8, stride16, self.layer4(stride16)


class MobileNetV3(Encoder):
    """MobileNetV3 (https://arxiv.org/abs/1905.02244), tables 1 and 2 without their classifier.

    Each map is the output of the last layer at its stride, of index ``last_layers`` among the
    network's ``features``; at stride 32 that is the final 1x1 convolution, as in the classifier.
    """

    preprocessing = IMAGENET

    def __init__(
        self,
        build: Callable[..., models.MobileNetV3],
        last_layers: tuple[int, int, int],
        out_channels: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.features = build(weights=None).features
        self.last_layers, self.out_channels = last_layers, out_channels
        _set_momentum(self)

    def forward(self, images: Tensor) -> EncoderMaps:
        maps, x = [], images
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.last_layers:
                maps.append(x)
        stride8, stride16, stride32 = maps
        return stride8, stride16, stride32


def _set_momentum(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM

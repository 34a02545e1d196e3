"""ResNet (https://arxiv.org/abs/1512.03385) as torchvision builds it."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision import models

from yolo.models.encoders.encoder import Encoder, EncoderMaps
from yolo.models.layers import BATCH_NORM_MOMENTUM, IMAGENET


def resnet18() -> ResNet:
    """Build ResNet-18: 128, 256 and 512 channels."""
    return ResNet(network=models.resnet18(weights=None), out_channels=(128, 256, 512))


def resnet50() -> ResNet:
    """Build ResNet-50: 512, 1024 and 2048 channels."""
    return ResNet(network=models.resnet50(weights=None), out_channels=(512, 1024, 2048))


def resnet101() -> ResNet:
    """Build ResNet-101: 512, 1024 and 2048 channels."""
    return ResNet(network=models.resnet101(weights=None), out_channels=(512, 1024, 2048))


class ResNet(Encoder):
    """Table 1 of the paper without pooling and classifier, read after conv3_x, conv4_x and conv5_x.

    The layers and their names are torchvision's, so its weights fit; where it puts the stride of a
    bottleneck on the 3x3 convolution, the paper has it on the first 1x1. The ImageNet normalisation
    stays without pretrained weights too, so that a checkpoint means the same input however its
    training began.

    Args:
        network: torchvision's; its pooling and classifier are left aside.
        out_channels: of ``layer2``, ``layer3`` and ``layer4``.
    """

    preprocessing = IMAGENET

    def __init__(self, *, network: models.ResNet, out_channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = network.conv1, network.bn1, network.relu
        self.maxpool = network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.out_channels = out_channels
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = BATCH_NORM_MOMENTUM

    def forward(self, images: Tensor) -> EncoderMaps:
        """Normalised (B, 3, S, S) -> ``out_channels`` at strides 8, 16 and 32."""
        stride4 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        stride8 = self.layer2(stride4)
        stride16 = self.layer3(stride8)
        stride32 = self.layer4(stride16)
        return stride8, stride16, stride32

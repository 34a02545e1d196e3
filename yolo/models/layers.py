"""The layers that all networks share: input normalisation and Darknet's convolution block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolo.darknet.cfg import Convolution, LayerList

BATCH_NORM_MOMENTUM = 0.1
"""Share of the newest batch in the running averages, PyTorch's default: they are worth using after
some tens of steps. Darknet and torchvision's MobileNetV3 have 0.01, whose averages lag hundreds of
steps behind the weights."""

BATCH_NORM_EPSILON = 1e-6
"""Added to the variance under the root, as OpenCV does with Darknet's networks.

Darknet's CPU code adds 1e-6 to the root, its GPU code 1e-5 to the variance. Over YOLOv3's 75
convolutions the two last differ by 1e-3 in scores, more than Darknet's files may lose here."""

LEAKY_SLOPE = 0.1
"""Darknet's ``leaky`` activation (YOLOv1 paper, equation 2)."""


class Preprocessing(NamedTuple):
    """What an encoder expects of its input, per channel in RGB order, on the scale 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


UNIT_RANGE = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""RGB / 255, Darknet's input."""

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The statistics of ImageNet, which torchvision's weights were trained with."""


class Normalise(nn.Module):
    """The first layer of every network: pixels 0..255 to (pixels / 255 - mean) / std.

    Mean and std are buffers, so they travel with the checkpoint and into an export, and the rest of
    the program handles uint8 images only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def adopt(self, preprocessing: Preprocessing) -> None:
        """Take another mean and std, those that the weights behind it were trained with."""
        self.mean.copy_(self.mean.new_tensor(preprocessing.mean).view_as(self.mean))
        self.std.copy_(self.std.new_tensor(preprocessing.std).view_as(self.std))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise in one pass: uint8 (B, 3, H, W) RGB -> the same shape, channels-last.

        The result has the precision of the buffers: float32 also under autocast, whose first
        convolution casts it.
        """
        pixels = images.to(self.mean.dtype, memory_format=torch.channels_last)
        return torch.addcmul(-self.mean / self.std, pixels, 1 / (255 * self.std))


class ConvBlock(nn.Module):
    """Darknet's ``[convolutional]`` layer: convolution, batch norm, leaky activation.

    The padding keeps the size (``pad=1`` in a cfg means ``size / 2``). Weights start from He's
    normal distribution over the fan-in, as in Darknet, with the gain of the leaky activation (He et
    al. 2015, section 2.2; Darknet leaves the slope out, which is 0.5%).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM)
        self.activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, a=LEAKY_SLOPE, nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride).

        A CPU's channels-last batch norm does not vectorise the gradient of fewer than 16 channels:
        in bf16 that of the first layer of 8 took 40% of a training step.
        """
        x = self.conv(x)
        if self.training and x.device.type == "cpu" and x.shape[1] < 16:
            x = x.contiguous()
        return self.activation(self.norm(x))

    def list_layers(self, layers: LayerList) -> int:
        return layers.add(Convolution(self.conv, norm=self.norm, activation="leaky"))


def scale_channels(channels: int, factor: float, *, at_least: int) -> int:
    """Multiply a number of channels and round it to a multiple of 8, which devices prefer."""
    return max(at_least, round(channels * factor / 8) * 8)

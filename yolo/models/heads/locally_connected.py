"""A convolution that does not share its weights: Darknet's ``[local]`` layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocallyConnected(nn.Module):
    """A convolution of stride 1 with its own weights and its own bias at every place of the map.

    The padding keeps the size. The weights stand as Darknet stores them, so each is the other's by
    a plain copy: ``weight`` (S * S, out, in * k * k), with the places row by row and the last axis
    over channel, row and column of the window; ``bias`` (out * S * S), channel by channel.

    Weights start uniform within sqrt(2 / fan-in) / S. Darknet fills the first place alone, without
    the S, and leaves the others at 0: here they share what that one has, so that the sum of squares
    over the map starts the same.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        cells: S, height and width of the map.
        kernel_size: k, odd.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, cells: int, kernel_size: int
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, "an odd window has a middle"
        self.out_channels = out_channels
        self.cells = cells
        self.kernel_size = kernel_size
        window = in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.empty(cells * cells, out_channels, window))
        self.bias = nn.Parameter(torch.zeros(out_channels * cells * cells))
        bound = math.sqrt(2 / window) / cells
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S, S) -> (B, out, S, S).

        One matrix product per place, all in one call that reads the weights once, whatever the
        batch.
        """
        windows = F.unfold(x, self.kernel_size, padding=self.kernel_size // 2)  # (B, in*k*k, S*S)
        result = torch.bmm(self.weight, windows.permute(2, 1, 0))  # (S*S, out, B)
        bias = self.bias.view(self.out_channels, -1)  # (out, S*S)
        result = result.permute(2, 1, 0) + bias  # (B, out, S*S)
        return result.unflatten(2, (self.cells, self.cells))  # (B, out, S, S)

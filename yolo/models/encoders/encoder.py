"""What the rest of the project expects of an encoder."""

from __future__ import annotations

from torch import Tensor, nn

from yolo.models.layers import Preprocessing

EncoderMaps = tuple[Tensor, Tensor, Tensor]
"""Feature maps at strides 8, 16 and 32: (B, C, S / stride, S / stride) each."""


class Encoder(nn.Module):
    """A backbone: turns normalised images (B, 3, S, S), S any multiple of 32, into ``EncoderMaps``.

    A subclass sets ``out_channels`` and ``preprocessing`` and defines ``forward``. Its modules, and
    those within them, are its children **in the order in which they run**, for two things go by it:

    - Freezing up to a stage freezes that stage and all before it. The stages are the children, or
      where a child is an ``nn.Sequential`` or ``nn.ModuleList``, its members.
    - Fusing, for prediction and export, takes a batch norm that is the next child after a
      convolution of the same width for that convolution's own.

    Where Darknet has its layers, ``list_layers(layers) -> (i, j, k)`` adds them to a
    ``yolo.darknet.cfg.LayerList`` and returns the indices of the three maps.
    """

    out_channels: tuple[int, int, int]  # of the three maps
    preprocessing: Preprocessing  # what the input is normalised with

"""A table of a network's layers: shapes, parameters, work and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

HEADINGS = ("layer", "kind", "kernel", "input", "output", "parameters", "trainable", "mult-adds")
ALIGNMENT = "<<<>>>>>"

BATCH = 2
"""Images in the dry run: batch norm in training mode refuses a single cell of a single image."""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer, or a convolution with its norm and activation; shapes are without the batch.

    ``multiply_adds`` are those of convolutions, local ones too, and linear layers, for one image.
    """

    name: str
    layer: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    multiply_adds: int

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.layer.parameters())

    def cells(self) -> tuple[str, ...]:
        """Under the ``HEADINGS``; the kernel is size / stride, and the groups if there are any."""
        trained = sum(p.numel() for p in self.layer.parameters() if p.requires_grad)
        trainable = {0: "no", self.parameters: "yes"}.get(trained, f"{trained:,}")
        return (
            self.name,
            type(self.layer).__name__,
            next(filter(None, map(_kernel, self.layer.modules())), ""),
            "x".join(map(str, self.input_shape)),
            "x".join(map(str, self.output_shape)),
            f"{self.parameters:,}" if self.parameters else "",
            trainable if self.parameters else "",
            f"{self.multiply_adds:,}" if self.multiply_adds else "",
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What a dry run found."""

    rows: tuple[Row, ...]  # in the order in which the layers ran
    parameters: int
    trainable: int
    statistics: int  # running means and variances of batch norms, which Darknet's files hold too
    weight_bytes: int  # of parameters and buffers
    trainable_bytes: int
    activation_bytes: int  # what the backward pass keeps, per image, at the model's own precision

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and linear layers, for one image."""
        return sum(row.multiply_adds for row in self.rows)


def summarise(model: nn.Module, image_size_px: int) -> str:
    """Describe every layer of a model in one printable table, followed by totals.

    The model, which takes uint8 images (B, 3, S, S), runs on tensors without data: that takes a
    moment on any machine, and the model is left as it was.
    """
    summary = dry_run(model, image_size_px)
    return "\n".join((*_table(summary.rows), "", *_totals(summary, image_size_px)))


def dry_run(model: nn.Module, image_size_px: int) -> Summary:
    """Run a model on shapes alone and collect its layers, totals and memory."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    shapes = {
        name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in tensors.items()
    }
    images = torch.zeros(BATCH, 3, image_size_px, image_size_px, dtype=torch.uint8, device="meta")
    ran: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, inputs, output, name=name: ran.append((name, layer, inputs[0], output))
        )
        for name, layer in _layers(model)
    ]
    weights = {_address(tensor) for tensor in shapes.values()}
    stored: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _address(tensor) not in weights:
            stored[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    try:
        memory = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with FlopCounterMode(display=False) as counter, memory, torch.enable_grad():
            output = functional_call(model, shapes, (images,))
    finally:
        for hook in hooks:
            hook.remove()
    del output  # kept so far: the graph holds the storages that ``stored`` tells apart by address
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    parameters = list(model.parameters())
    return Summary(
        rows=tuple(
            Row(name, layer, tuple(before.shape[1:]), tuple(after.shape[1:]), multiply_adds)
            for name, layer, before, after in ran
            for multiply_adds in [flops.get(f"{type(model).__name__}.{name}", 0) // (2 * BATCH)]
        ),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        statistics=sum(t.numel() for name, t in tensors.items() if "running_" in name),
        weight_bytes=sum(t.nbytes for t in tensors.values()),
        trainable_bytes=sum(p.nbytes for p in parameters if p.requires_grad),
        activation_bytes=sum(stored.values()) // BATCH,
    )


def _address(tensor: Tensor) -> int:
    """Tell memories apart, also where there is no data and hence no pointer to it."""
    return tensor.untyped_storage()._cdata


def _layers(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that get a row, depth first."""
    children = list(module.named_children())
    if not children or is_conv_block(module):
        yield name, module
        return
    for child_name, child in children:
        yield from _layers(child, f"{name}.{child_name}" if name else child_name)


def is_conv_block(module: nn.Module) -> bool:
    """Whether it is one convolution with what belongs to it (norm, activation)."""
    children = list(module.children())
    flat = not any(list(child.children()) for child in children)
    return flat and len(children) > 1 and sum(isinstance(c, nn.Conv2d) for c in children) == 1


def _kernel(layer: nn.Module) -> str:
    if not hasattr(layer, "kernel_size"):
        return ""
    (height, width), (stride, _) = (
        size if isinstance(size, tuple) else (size, size)
        for size in (layer.kernel_size, getattr(layer, "stride", 1))
    )
    groups = getattr(layer, "groups", 1)
    return f"{height}x{width}/{stride}" + (f" g{groups}" if groups > 1 else "")


def _table(rows: tuple[Row, ...]) -> list[str]:
    cells = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    formats = [f"{{:{side}{width}}}" for side, width in zip(ALIGNMENT, widths, strict=True)]
    lines = ["  ".join(formats).format(*line).rstrip() for line in cells]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _totals(summary: Summary, image_size_px: int) -> list[str]:
    frozen = summary.parameters - summary.trainable
    training_state = summary.weight_bytes + 3 * summary.trainable_bytes
    return [
        f"parameters        {summary.parameters:,} "
        f"({summary.trainable:,} trainable, {frozen:,} frozen)",
        f"with statistics   {summary.parameters + summary.statistics:,} numbers with the running "
        f"means and variances, as in a file of Darknet",
        f"multiply-adds     {summary.multiply_adds / 1e9:.2f} G per image of {image_size_px} px "
        f"(convolutions and linear layers)",
        f"weights           {summary.weight_bytes / 1e6:,.1f} MB; "
        f"{training_state / 1e6:,.1f} MB with gradients and Adam's two moments",
        f"activations       {summary.activation_bytes / 1e6:,.1f} MB per image kept for the "
        f"backward pass; about half of it in mixed precision",
    ]

"""A table of a network's layers: shapes, parameters, work and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from yolo.models.heads.locally_connected import LocallyConnected

HEADINGS = ("layer", "kind", "kernel", "input", "output", "parameters", "trainable", "mult-adds")
LEFT_ALIGNED = 3

Weighty = nn.Conv2d | nn.Linear | LocallyConnected
"""The layers whose multiply-adds are counted."""

BATCH = 2
"""Images in the dry run: batch norm in training mode refuses a single cell of a single image."""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: a convolution with its norm and activation, or a layer that stands alone.

    Attributes:
        name: its name in the model.
        kind: its class.
        kernel: size / stride, and the groups where there are several; empty if it has none.
        input_shape, output_shape: without the batch.
        parameters, trainable: how many.
        multiply_adds: of convolutions, local ones too, and linear layers, for one image.
    """

    name: str
    kind: str
    kernel: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a dry run found.

    Attributes:
        rows: the layers, in the order in which they ran.
        parameters, trainable: of the whole model.
        statistics: running means and variances of batch norms, which Darknet's files hold too.
        weight_bytes: of parameters and buffers.
        trainable_bytes: of the trainable parameters.
        activation_bytes: what the backward pass keeps, per image, at the model's own precision.
    """

    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    statistics: int
    weight_bytes: int
    trainable_bytes: int
    activation_bytes: int

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and linear layers, for one image."""
        return sum(row.multiply_adds for row in self.rows)


def summarise(model: nn.Module, image_size_px: int) -> str:
    """Describe every layer of a model in one printable table, followed by totals.

    Nothing is computed: the model runs on tensors without data, so it takes a moment on any
    machine, and the model is left as it was.

    Args:
        model: takes uint8 images (B, 3, S, S).
        image_size_px: S.
    """
    summary = dry_run(model, image_size_px)
    return "\n".join((*_table(summary), "", *_totals(summary, image_size_px)))


def dry_run(model: nn.Module, image_size_px: int) -> Summary:
    """Run a model on shapes alone and collect its layers, totals and memory."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    shapes = {
        name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in tensors.items()
    }
    images = torch.zeros(BATCH, 3, image_size_px, image_size_px, dtype=torch.uint8, device="meta")
    rows: list[Row] = []
    stored: dict[int, int] = {}
    with _recording_rows(model, rows), _recording_activations(shapes, stored), torch.enable_grad():
        output = functional_call(model, shapes, (images,))
    del output  # kept so far: the graph holds the storages that ``stored`` tells apart by address
    parameters = list(model.parameters())
    return Summary(
        rows=tuple(rows),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        statistics=sum(
            buffer.numel()
            for name, buffer in model.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ),
        weight_bytes=sum(t.nbytes for t in tensors.values()),
        trainable_bytes=sum(p.nbytes for p in parameters if p.requires_grad),
        activation_bytes=sum(stored.values()) // BATCH,
    )


@contextmanager
def _recording_rows(model: nn.Module, rows: list[Row]) -> Iterator[None]:
    """Append a row for every layer that runs."""

    def record(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows.append(_row(name, layer, tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

    handles = [
        layer.register_forward_hook(lambda layer, i, o, name=name: record(name, layer, i, o))
        for name, layer in _layers(model)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _recording_activations(weights: dict[str, Tensor], stored: dict[int, int]) -> Iterator[None]:
    """Note the size of each distinct memory that autograd keeps, the weights' own aside."""
    known = {_address(tensor) for tensor in weights.values()}

    def keep(tensor: Tensor) -> Tensor:
        if _address(tensor) not in known:
            stored[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


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
    convolutions = [child for child in children if isinstance(child, nn.Conv2d)]
    alone = len(children) == 1
    return (
        not alone
        and len(convolutions) == 1
        and not any(list(child.children()) for child in children)
    )


def _row(
    name: str, layer: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> Row:
    weighty = next((m for m in layer.modules() if isinstance(m, Weighty)), None)
    parameters = list(layer.parameters())
    return Row(
        name=name,
        kind=type(layer).__name__,
        kernel=_kernel(weighty or layer),
        input_shape=input_shape,
        output_shape=output_shape,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=_multiply_adds(weighty, output_shape),
    )


def _kernel(layer: nn.Module) -> str:
    if isinstance(layer, nn.MaxPool2d):
        return f"{layer.kernel_size}x{layer.kernel_size}/{layer.stride}"
    if isinstance(layer, LocallyConnected):
        return f"{layer.kernel_size}x{layer.kernel_size}/1"
    if not isinstance(layer, nn.Conv2d):
        return ""
    height, width = layer.kernel_size
    groups = f" g{layer.groups}" if layer.groups > 1 else ""
    return f"{height}x{width}/{layer.stride[0]}{groups}"


def _multiply_adds(layer: Weighty | None, output_shape: tuple[int, ...]) -> int:
    """Each output number costs as many multiply-adds as it has weights."""
    if layer is None:
        return 0
    if isinstance(layer, LocallyConnected):
        return layer.weight.numel()  # no two output numbers share a weight
    return prod(output_shape) * prod(layer.weight.shape[1:])


def _table(summary: Summary) -> list[str]:
    cells = [HEADINGS, *(_cells(row) for row in summary.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _cells(row: Row) -> tuple[str, ...]:
    trainable = {0: "no", row.parameters: "yes"}.get(row.trainable, f"{row.trainable:,}")
    return (
        row.name,
        row.kind,
        row.kernel,
        "x".join(map(str, row.input_shape)),
        "x".join(map(str, row.output_shape)),
        f"{row.parameters:,}" if row.parameters else "",
        trainable if row.parameters else "",
        f"{row.multiply_adds:,}" if row.multiply_adds else "",
    )


def _aligned(line: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.ljust(width) if column < LEFT_ALIGNED else cell.rjust(width)


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
        f"weights           {_megabytes(summary.weight_bytes)}; "
        f"{_megabytes(training_state)} with gradients and Adam's two moments",
        f"activations       {_megabytes(summary.activation_bytes)} per image kept for the backward "
        f"pass; about half of it in mixed precision",
    ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"

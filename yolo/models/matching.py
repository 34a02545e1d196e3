"""Filling a model from the tensors of another one that is like it in part."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from yolo.models.load_report import LoadReport
from yolo.models.summary import is_conv_block


def fill_matching(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Fill every layer whose tensors are all there under their names and in their shapes.

    A layer is filled as a whole or not at all: a bias of the right length beside a weight of
    another shape would belong to something else.

    Args:
        model: to be filled in place.
        tensors: of a model's ``state_dict``.

    Returns:
        Names of the layers that were filled, in the model's order.
    """
    state = model.state_dict()
    filled: list[str] = []
    fitting: dict[str, Tensor] = {}
    for layer, names in tensors_by_layer(model).items():
        # batch norm's step counters are not needed, and old files lack them
        needed = [name for name in names if not name.endswith("num_batches_tracked")]
        if all(name in tensors and tensors[name].shape == state[name].shape for name in needed):
            filled.append(layer)
            fitting |= {name: tensors[name] for name in names if name in tensors}
    model.load_state_dict(fitting, strict=False)
    return tuple(filled)


def report_filled(model: nn.Module, source: str, filled: Collection[str]) -> LoadReport:
    """What a file gave to a model, or to a part of it, and what it left.

    Args:
        model: the model or part.
        source: the file, and what was found in it.
        filled: names of the layers, in any order.
    """
    layers = tuple(tensors_by_layer(model))
    ours = tuple(name for name in layers if name in filled)
    return LoadReport(
        source=source,
        filled=ours,
        left=tuple(name for name in layers if name not in filled),
        parameters_filled=_count_parameters(model, ours),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def tensors_by_layer(model: nn.Module) -> dict[str, list[str]]:
    """Names of parameters and buffers by the layer they belong to, in the model's order.

    Layers are those of the summary: a convolution with its batch norm is one. What has no
    parameters is none.
    """
    blocks = {name for name, module in model.named_modules() if is_conv_block(module)}
    layers: dict[str, list[str]] = {}
    for name in model.state_dict():
        layers.setdefault(_layer_of(name, blocks), []).append(name)
    parameters = {_layer_of(name, blocks) for name, _ in model.named_parameters()}
    return {layer: names for layer, names in layers.items() if layer in parameters}


def _count_parameters(model: nn.Module, layers: tuple[str, ...]) -> int:
    """Numbers in the parameters of these layers."""
    by_layer = tensors_by_layer(model)
    parameters = dict(model.named_parameters())
    return sum(
        parameters[name].numel()
        for layer in layers
        for name in by_layer[layer]
        if name in parameters
    )


def _layer_of(tensor: str, blocks: set[str]) -> str:
    module = tensor.rpartition(".")[0]
    block = module.rpartition(".")[0]
    return block if block in blocks else module

"""A watch over code that must not wait for a device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoHostData(TorchDispatchMode):
    """Fails where an operation mixes in a host tensor: its copy would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.ndim:
                raise AssertionError(f"{func} reads a host tensor")
        return func(*args, **(kwargs or {}))

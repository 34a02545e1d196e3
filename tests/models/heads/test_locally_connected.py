import torch

from yolo.models.heads.yolov1 import LocallyConnected


def naive(layer, x):
    """The dot product of every window with the weights of its place, in the stored order."""
    images, channels, cells, _ = x.shape
    size, padding = layer.kernel_size, layer.kernel_size // 2
    weight = layer.weight.view(cells, cells, layer.out_channels, channels, size, size)
    bias = layer.bias.view(layer.out_channels, cells, cells)
    out = torch.zeros(images, layer.out_channels, cells, cells, dtype=x.dtype)
    for row in range(cells):
        for column in range(cells):
            out[:, :, row, column] = bias[:, row, column]
            for i in range(size):
                for j in range(size):
                    r, c = row + i - padding, column + j - padding
                    if 0 <= r < cells and 0 <= c < cells:
                        shared = weight[row, column, :, :, i, j]  # (out, in)
                        out[:, :, row, column] += x[:, :, r, c] @ shared.T
    return out


def test_against_a_naive_loop_forward_and_backward():
    layer = LocallyConnected(5, 6, cells=4, kernel_size=3).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    leaves = (x, layer.weight, layer.bias)
    ours, expected = layer(x), naive(layer, x)
    torch.testing.assert_close(ours, expected)
    grad = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, grad),
        torch.autograd.grad(expected, leaves, grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_memory_format_of_the_map_does_not_matter():
    layer = LocallyConnected(8, 4, cells=3, kernel_size=3)
    x = torch.randn(2, 8, 3, 3)
    interleaved = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), layer(interleaved))


def test_all_places_share_the_start_of_one():
    """A uniform distribution has a third of its bound's square: 2 / 3 / cells ** 2 of the input."""
    layer = LocallyConnected(64, 32, cells=5, kernel_size=3)
    out = layer(torch.randn(16, 64, 5, 5))[:, :, 1:-1, 1:-1]  # away from the padding
    assert abs(out.square().mean().item() * 25 - 2 / 3) < 0.1

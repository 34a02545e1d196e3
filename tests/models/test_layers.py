import torch

from yolo.models.layers import ConvBlock, Normalise, scale_channels


def test_normalise_by_hand():
    normalise = Normalise(mean=(0.0, 0.5, 0.2), std=(1.0, 0.25, 0.1))
    images = torch.tensor([255, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    expected = torch.tensor([1.0, 2.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(normalise(images), expected, atol=1e-6, rtol=0)


def test_normalise_gives_channels_last_from_either_layout():
    normalise = Normalise(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    planar = normalise(images)
    interleaved = normalise(images.contiguous(memory_format=torch.channels_last))
    assert planar.is_contiguous(memory_format=torch.channels_last)
    assert interleaved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(planar, interleaved)


def test_normalise_travels_with_the_checkpoint_and_follows_its_precision():
    source = Normalise(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    copy = Normalise(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    copy.load_state_dict(source.state_dict())
    images = torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8)
    assert torch.equal(copy(images), source(images))
    assert copy.half()(images).dtype == torch.float16


def test_conv_block_starts_with_unit_variance_and_leaks_a_tenth():
    torch.manual_seed(0)
    block = ConvBlock(64, 32, kernel_size=3, stride=2).eval()
    x = torch.randn(4, 64, 32, 32)
    out = block(x)
    assert out.shape == (4, 32, 16, 16)
    linear = block.conv(x) / (1 + 1e-6) ** 0.5  # the norm starts with mean 0 and variance 1
    torch.testing.assert_close(out, torch.where(linear > 0, linear, 0.1 * linear))
    assert abs(out.square().mean().item() - 1) < 0.15, "He's start keeps the second moment"


def test_few_channels_are_normalised_planar_while_training_and_to_the_same_values():
    for channels, planar in ((8, True), (16, False)):
        block = ConvBlock(3, channels, kernel_size=3).to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 12, 12).contiguous(memory_format=torch.channels_last)
        out = block(x)
        assert out.is_contiguous() is planar
        assert block.eval()(x).is_contiguous(memory_format=torch.channels_last)
        block.train()
        expected = block.activation(block.norm(block.conv(x)))
        torch.testing.assert_close(out, expected)
        weights = list(block.parameters())
        found = torch.autograd.grad(out.square().sum(), weights)
        wanted = torch.autograd.grad(expected.square().sum(), weights)
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)


def test_scaled_channels_are_multiples_of_eight():
    assert [scale_channels(c, 0.3, at_least=8) for c in (16, 64, 256)] == [8, 16, 80]
    assert scale_channels(128, 0.1, at_least=32) == 32

"The U-Net: published sizes, any image size, zero at the start, and mistakes."
import pytest
import torch
from strategies import images

from ddpm_lit import UNet, UNetConfig


def parameters(config) -> int:
    with torch.device("meta"): return sum(p.numel() for p in UNet(config).parameters())


def test_published_numbers_of_parameters():
    assert parameters(UNetConfig()) == 35_746_307  # CIFAR-10
    assert parameters(UNetConfig(image_size=64, multipliers=(1, 2, 2, 2, 4))) == 78_700_803  # CelebA


def noisy(net: UNet) -> UNet:
    "Weights without the zeros of the initialisation, which would hide everything."
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters(): p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return net.eval()


@pytest.mark.parametrize("height, width, multipliers", [(7, 7, (1, 2, 2)), (28, 28, (1, 2, 2)), (8, 8, (1, 2)), (9, 5, (1, 1, 1)), (16, 24, (1, 2)), (1, 1, (1, 1)), (2, 31, (1, 1, 1, 1))])
def test_any_size_comes_out_as_it_went_in(height, width, multipliers):
    net = noisy(UNet(UNetConfig(28, 2, 8, multipliers, 1, ())))
    x, t = images(0, 2, 2, height, width, dtype=torch.float32), torch.tensor([1, 1000])
    out = net(x, t)
    assert out.shape == x.shape and torch.isfinite(out).all()
    torch.testing.assert_close(out[1:], net(x[1:], t[1:]), rtol=1e-4, atol=1e-4)
    if height * width > 1: assert (net(x, torch.tensor([600, 1000]))[0] - out[0]).abs().max() > 1e-5, "the time matters"


def test_a_new_network_answers_zero():
    "The last convolution starts at zero, so that the first prediction is the mean of all noise."
    net = UNet(UNetConfig(8, 1, 16, (1, 2), 1, (4,)))
    assert (net.conv_out.weight == 0).all() and (net(images(0, 2, 1, 8, 8, dtype=torch.float32), torch.tensor([1, 5])) == 0).all()


def test_labels_and_the_null_label():
    net = noisy(UNet(UNetConfig(8, 1, 8, (1, 2), 1, (), num_classes=3)))
    x, t = images(0, 2, 1, 8, 8, dtype=torch.float32), torch.tensor([1, 5])
    null = net(x, t)
    torch.testing.assert_close(net(x, t, torch.tensor([3, 3])), null)
    assert (net(x, t, torch.tensor([0, 1])) - null).abs().max() > 1e-6
    torch.testing.assert_close(net(x, t, torch.tensor([0, 3]))[1], null[1])


def test_half_precision_runs():
    net = noisy(UNet(UNetConfig(8, 1, 16, (1, 2), 1, (4,)))).bfloat16()
    assert torch.isfinite(net(images(0, 2, 1, 8, 8, dtype=torch.bfloat16), torch.tensor([1, 1000]))).all()


@pytest.mark.parametrize("options, names", [
    (dict(image_size=0), ["image_size", "0"]), (dict(channels=7), ["channels", "7"]), (dict(channels=2), ["channels", "2"]),
    (dict(multipliers=()), ["multipliers"]), (dict(multipliers=(1, 0)), ["multipliers", "0"]), (dict(attention=(5,)), ["attention", "5"]),
    (dict(heads=3), ["heads", "3"]), (dict(dropout=1.0), ["dropout", "1.0"]), (dict(num_classes=0), ["num_classes", "0"]), (dict(blocks=0), ["blocks", "0"]),
])
def test_mistakes_in_the_configuration_are_refused(options, names):
    with pytest.raises(ValueError) as refusal: UNetConfig(**options)
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


def test_labels_for_a_network_without_labels_are_refused():
    net = UNet(UNetConfig(8, 1, 8, (1, 2), 1, ()))
    with pytest.raises(ValueError, match="y must be None"): net(torch.zeros(1, 1, 8, 8), torch.tensor([1]), torch.tensor([0]))

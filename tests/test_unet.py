"""The U-Net: published sizes, any image size, zero at the start, the same answer
compiled, in another order in memory and with less of it, and mistakes."""

import json
import shutil
from dataclasses import asdict, replace

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from strategies import images

from ddpm_lit import UNet, UNetConfig, load_pretrained
from ddpm_lit.configs import PRESETS
from ddpm_lit.unet import Attention, Block, Norm, TransposedUpsample


def parameters(config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(config).parameters())


def test_published_numbers_of_parameters():
    assert parameters(UNetConfig()) == 35_746_307  # CIFAR-10
    # CelebA
    assert (
        parameters(UNetConfig(image_size=64, multipliers=(1, 2, 2, 2, 4))) == 78_700_803
    )


def test_presets():
    assert {name: parameters(config) for name, config in PRESETS.items()} == {
        "digits": 163_985,
        "mnist": 1_112_801,
        "cifar10": 35_746_307,
        "celeba64": 78_700_803,
        "celeba64-small": 11_967_811,
    }
    assert {name: (c.image_size, c.in_channels) for name, c in PRESETS.items()} == {
        "digits": (8, 1),
        "mnist": (28, 1),
        "cifar10": (32, 3),
        "celeba64": (64, 3),
        "celeba64-small": (64, 3),
    }
    assert PRESETS["cifar10"] == UNetConfig(
        32, 3, 128, (1, 2, 2, 2), 2, (16,), dropout=0.1
    )


def test_a_configuration_of_before_the_newest_fields_is_what_it_was():
    old = dict(
        image_size=28,
        in_channels=1,
        channels=32,
        multipliers=[1, 2, 2],
        blocks=1,
        attention=[7],
        heads=2,
        dropout=0.0,
        num_classes=None,
        context_dim=None,
        conditioning="add",
    )
    c = UNetConfig(**old)
    assert (
        c.upsampling,
        c.head_dim,
        c.norm_groups,
        c.checkpointing,
        c.groups,
        c.heads_at(64),
    ) == ("nearest", None, None, False, 8, 2)
    assert UNetConfig(**asdict(c)) == c and replace(
        c, checkpointing=True
    ) == c != replace(c, upsampling="transposed")


def noisy(net: UNet) -> UNet:
    "Weights without the zeros of the initialisation, which would hide everything."
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return net.eval()


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize(
    "height, width, multipliers",
    [
        (7, 7, (1, 2, 2)),
        (28, 28, (1, 2, 2)),
        (8, 8, (1, 2)),
        (9, 5, (1, 1, 1)),
        (16, 24, (1, 2)),
        (1, 1, (1, 1)),
        (2, 31, (1, 1, 1, 1)),
    ],
)
def test_any_size_comes_out_as_it_went_in(height, width, multipliers, upsampling):
    net = noisy(UNet(UNetConfig(28, 2, 8, multipliers, 1, (), upsampling=upsampling)))
    x, t = images(0, 2, 2, height, width, dtype=torch.float32), torch.tensor([1, 1000])
    out = net(x, t)
    assert out.shape == x.shape and torch.isfinite(out).all()
    torch.testing.assert_close(out[1:], net(x[1:], t[1:]), rtol=1e-4, atol=1e-4)
    if height * width > 1:
        assert (net(x, torch.tensor([600, 1000]))[0] - out[0]).abs().max() > 1e-5, (
            "the time matters"
        )


def test_a_new_network_answers_zero():
    """The last convolution starts at zero, so that the first prediction is the mean of
    all noise."""
    net = UNet(UNetConfig(8, 1, 16, (1, 2), 1, (4,)))
    assert (net.conv_out.weight == 0).all() and (
        net(images(0, 2, 1, 8, 8, dtype=torch.float32), torch.tensor([1, 5])) == 0
    ).all()


def test_labels_and_the_null_label():
    net = noisy(UNet(UNetConfig(8, 1, 8, (1, 2), 1, (), num_classes=3)))
    x, t = images(0, 2, 1, 8, 8, dtype=torch.float32), torch.tensor([1, 5])
    null = net(x, t)
    torch.testing.assert_close(net(x, t, torch.tensor([3, 3])), null)
    assert (net(x, t, torch.tensor([0, 1])) - null).abs().max() > 1e-6
    torch.testing.assert_close(net(x, t, torch.tensor([0, 3]))[1], null[1])


def test_half_precision_runs():
    net = noisy(UNet(UNetConfig(8, 1, 16, (1, 2), 1, (4,)))).bfloat16()
    assert torch.isfinite(
        net(images(0, 2, 1, 8, 8, dtype=torch.bfloat16), torch.tensor([1, 1000]))
    ).all()


# The way up, heads and groups


def test_a_transposed_convolution_paints_windows():
    """Each pixel adds its window of 4 × 4, shifted by two for each step and by one for
    the rim; what goes beyond the level above is cut."""
    up, x = TransposedUpsample(2), images(0, 1, 2, 3, 4, dtype=torch.float32)
    want = up.bias[None, :, None, None] * torch.ones(1, 2, 10, 12)
    with torch.no_grad():
        for i in range(3):
            for j in range(4):
                want[:, :, 2 * i + 1 : 2 * i + 5, 2 * j + 1 : 2 * j + 5] += (
                    torch.einsum("bc,cokl->bokl", x[:, :, i, j], up.weight)
                )
        for size in ((6, 8), (5, 7), (6, 7)):
            torch.testing.assert_close(
                up(x, size), want[:, :, 2 : 2 + size[0], 2 : 2 + size[1]]
            )


def test_upsampling_changes_the_way_up_and_nothing_else():
    near, transposed = (
        {
            name: tuple(x.shape)
            for name, x in UNet(UNetConfig(8, 1, 8, (1, 1), 1, (), upsampling=kind))
            .state_dict()
            .items()
        }
        for kind in ("nearest", "transposed")
    )
    assert list(near) == list(transposed) and {
        name: transposed[name] for name in near if near[name] != transposed[name]
    } == {"up.2.weight": (8, 8, 4, 4)}


def test_heads_of_one_width_at_every_level():
    c = UNetConfig(8, 1, 16, (1, 2), 1, (8, 4), head_dim=8)
    assert {m.heads for m in UNet(c).modules() if isinstance(m, Attention)} == {
        2,
        4,
    } and (c.heads_at(16), c.heads_at(32)) == (2, 4)


def test_groups_that_are_asked_for():
    assert {
        m.num_groups
        for m in UNet(UNetConfig(8, 1, 16, (1, 2), 1, (4,), norm_groups=8)).modules()
        if isinstance(m, torch.nn.GroupNorm)
    } == {8}


# The same answer for less

FORMS = {
    "labels, odd, attention": (
        UNetConfig(7, 1, 8, (1, 2), 1, (4,), dropout=0.3, num_classes=3),
        7,
        lambda: torch.randint(0, 4, (2,)),
    ),
    "contexts, scale and shift, transposed": (
        UNetConfig(
            6,
            2,
            8,
            (1, 2),
            1,
            (),
            dropout=0.0,
            context_dim=2,
            conditioning="scale_shift",
            upsampling="transposed",
        ),
        6,
        lambda: torch.randn(2, 2),
    ),
    "two heads, odd, neither": (
        UNetConfig(5, 1, 8, (1, 1), 1, (3,), dropout=0.0, heads=2),
        5,
        lambda: None,
    ),
}


def asked(config, size, seed):
    torch.manual_seed(seed)
    return torch.randn(2, config.in_channels, size, size), torch.randint(1, 1001, (2,))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", FORMS)
def test_compiled_in_one_piece_and_once(name, training):
    "No break in the graph, and no second compilation for other times and labels."
    config, size, y = FORMS[name]
    net = noisy(UNet(config)).train(training)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(3):
            (x, t), told, answers = asked(config, size, seed), y(), []
            for model in (net, compiled):
                torch.manual_seed(seed)  # of the dropout
                answers.append(model(x, t, told))
            assert torch.equal(*answers)


def one_step(config, order=torch.contiguous_format, dtype=torch.float32):
    "(answer, gradients, bytes kept for the backward pass)"
    net, kept = noisy(UNet(config)).train().to(dtype, memory_format=order), {}
    x, t = asked(config, config.image_size, 0)

    def keep(saved):
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        out = net(x.to(dtype, memory_format=order), t)
    for p in net.parameters():
        kept.pop(p.untyped_storage().data_ptr(), None)
    out.square().mean().backward()
    return (
        out.detach(),
        {name: p.grad for name, p in net.named_parameters()},
        sum(kept.values()),
    )


@pytest.mark.parametrize(
    "name", ["labels, odd, attention", "contexts, scale and shift, transposed"]
)
def test_checkpointing_changes_memory_and_nothing_else(name):
    "To the bit, dropout included."
    config = replace(
        FORMS[name][0], image_size=16, attention=(8,), blocks=2, dropout=0.5
    )
    (out, grads, much), (again, others, little) = (
        one_step(config),
        one_step(replace(config, checkpointing=True)),
    )
    assert torch.equal(out, again) and all(
        torch.equal(x, others[key]) for key, x in grads.items() if x is not None
    )
    # a seventh and a sixth; where what is joined on the way up is kept as well, it is a
    # fifth
    assert little < much / 5.5


def test_checkpointing_is_not_in_the_weights_and_needs_no_training():
    config = UNetConfig(8, 1, 8, (1, 2), 1, (4,))
    net, other = UNet(config), UNet(replace(config, checkpointing=True))
    other.load_state_dict(noisy(net).state_dict())
    with torch.no_grad():
        assert torch.equal(
            net(*asked(config, 8, 0)), other.eval()(*asked(config, 8, 0))
        )


@pytest.mark.slow
def test_checkpointing_can_be_compiled():
    config = UNetConfig(8, 1, 8, (1, 2), 1, (4,), dropout=0.3, checkpointing=True)
    net, grads = noisy(UNet(config)).train(), []
    torch._dynamo.reset()
    for model in (net, torch.compile(net, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(1)
        grads.append(
            torch.autograd.grad(
                model(*asked(config, 8, 0)).square().mean(),
                [p for name, p in net.named_parameters()],
            )
        )
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 14])
def test_channels_that_lie_side_by_side_stay_so(size, dtype):
    config, last = (
        UNetConfig(size, 3, 16, (1, 2, 2), 1, (-(-size // 4),)),
        torch.channels_last,
    )
    net, orders = noisy(UNet(config)).to(dtype), {}
    x, t = asked(config, size, 0)
    want = net(x.to(dtype), t)
    net = net.to(memory_format=last)
    for name, layer in net.named_modules():
        if isinstance(layer, (Block, Attention, Norm, torch.nn.Conv2d)):
            layer.register_forward_hook(
                lambda layer, args, out, name=name: orders.update(
                    {name: out.is_contiguous(memory_format=last)}
                )
            )
    got = net(x.to(dtype, memory_format=last), t)
    assert len(orders) > 40 and all(orders.values()), [
        name for name, kept in orders.items() if not kept
    ]
    assert (got - want).norm() < (
        1e-5 if dtype == torch.float32 else 0.05
    ) * want.norm()


def test_normalisation_is_the_same_in_either_order():
    norm, x = Norm(4, 16).bfloat16(), images(0, 2, 16, 5, 6, dtype=torch.bfloat16)
    with torch.no_grad():
        (
            norm.weight.copy_(torch.linspace(-1, 1, 16)),
            norm.bias.copy_(torch.linspace(0, 2, 16)),
        )
    got = norm(x.contiguous(memory_format=torch.channels_last))
    assert (
        torch.equal(got, F.group_norm(x, 4, norm.weight, norm.bias, norm.eps))
        and got.is_contiguous(memory_format=torch.channels_last)
        and norm(x).is_contiguous()
    )


# Mistakes


@pytest.mark.parametrize(
    "options, names",
    [
        (dict(image_size=0), ["image_size", "0"]),
        (dict(channels=7), ["channels", "7"]),
        (dict(channels=2), ["channels", "2"]),
        (dict(multipliers=()), ["multipliers"]),
        (dict(multipliers=(1, 0)), ["multipliers", "0"]),
        (dict(attention=(5,)), ["attention", "5"]),
        (dict(heads=3), ["heads", "3"]),
        (dict(dropout=1.0), ["dropout", "1.0"]),
        (dict(num_classes=0), ["num_classes", "0"]),
        (dict(blocks=0), ["blocks", "0"]),
        (
            dict(upsampling="bilinear"),
            ["upsampling", "nearest", "transposed", "bilinear"],
        ),
        (dict(head_dim=0), ["head_dim", "0"]),
        (dict(head_dim=48), ["head_dim", "256", "48"]),
        (dict(head_dim=64, heads=2), ["heads", "head_dim", "2"]),
        (dict(norm_groups=0), ["norm_groups", "0"]),
        (dict(norm_groups=24), ["norm_groups", "128", "24"]),
    ],
)
def test_mistakes_in_the_configuration_are_refused(options, names):
    with pytest.raises(ValueError) as refusal:
        UNetConfig(**options)
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


def test_labels_for_a_network_without_labels_are_refused():
    net = UNet(UNetConfig(8, 1, 8, (1, 2), 1, ()))
    with pytest.raises(ValueError, match="y must be None"):
        net(torch.zeros(1, 1, 8, 8), torch.tensor([1]), torch.tensor([0]))


# In a folder, and on the Hub


def other(config: UNetConfig) -> UNet:
    "A network whose weights are not those of a fresh one."
    torch.manual_seed(1)
    net = UNet(config).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


KEPT = UNetConfig(8, 1, 8, (1, 2), 1, (4,), num_classes=3, checkpointing=True)


def test_a_network_comes_back_from_a_folder(tmp_path):
    net = other(KEPT)
    folder = net.save_pretrained(tmp_path / "net")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["multipliers"] == [1, 2]
    back = UNet.from_pretrained(str(folder))
    assert back.config == net.config and back.config.checkpointing
    assert not back.training and type(back) is UNet
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 20])
    with torch.no_grad():
        assert torch.equal(back(x, t, t % 3), net(x, t, t % 3))
    half = net.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    assert UNet.from_pretrained(half).conv_in.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "change, says",
    [
        ("[]", "must hold a JSON object"),
        ({"wings": 2}, "describes no network: .*wings"),
        ({"channels": 7}, "channels must be even"),
        ({"blocks": 10**9}, "more blocks"),
        ({"channels": 10**15}, "describes no network"),
        ({"channels": "8"}, "describes no network"),
        ({"num_classes": None}, "label.weight should be absent"),
        ({"channels": 16}, r"conv_in.bias should be \(16,\) and is \(8,\)"),
    ],
)
def test_damaged_files_of_a_network_are_refused_in_a_sentence(tmp_path, change, says):
    path = other(KEPT).save_pretrained(tmp_path) / "config.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(change)
    with pytest.raises(ValueError, match=says) as refusal:
        UNet.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="config.json is missing"):
        UNet.from_pretrained(tmp_path)
    other(KEPT).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("weights")
    with pytest.raises(ValueError, match="no safetensors file"):
        UNet.from_pretrained(tmp_path)
    run = load_pretrained("digits").save(tmp_path / "run")
    with pytest.raises(ValueError, match="is a run: load_pretrained reads it"):
        UNet.from_pretrained(run)
    for name in ("nobody/nothing", "no/such/folder"):
        with pytest.raises(ValueError, match=f"name_or_folder .* got '{name}'") as no:
            UNet.from_pretrained(name)
        assert "\n" not in str(no.value)


def test_push_to_hub_uploads_what_from_pretrained_reads(tmp_path, monkeypatch):
    asked, net = [], other(KEPT)

    class Hub:
        def __init__(self, token):
            asked.append(token)

        def create_repo(self, repo_id, private, exist_ok):
            asked.append((repo_id, private, exist_ok))
            return f"https://hub/{repo_id}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / repo_id)

    def download(name, allow_patterns):
        return tmp_path / name

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    address = net.push_to_hub("me/net", private=True, token="t")
    assert address == "https://hub/me/net"
    assert asked == ["t", ("me/net", True, True)]
    back = UNet.from_pretrained("me/net").state_dict()
    assert all(torch.equal(back[name], x) for name, x in net.state_dict().items())

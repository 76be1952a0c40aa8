"""What runs in a step of training or sampling: traced in one piece, for int and tensor
times, and differentiable."""

import pytest
import torch
from strategies import images
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_lit import DDIM, DDPM, EPS, V, X0, Denoiser, DPMSolver, DynamicThreshold
from ddpm_lit import Gaussian, GaussianMixtureOracle, clip_prediction, ddpm_loss
from ddpm_lit import gaussian_kl, guided, linear_schedule, min_snr_weight, q_posterior
from ddpm_lit import ddim_encode, lerp, q_sample, sample, transition, vlb_terms
from ddpm_lit.editing import image_to_image, interpolate, noise_up
from ddpm_lit.editing import sample_with_shared_start, variance_preserving_mix
from ddpm_lit.elbo import _prior, _step_kl, decoder_log_prob, vlb_weight
from ddpm_lit.guidance import classifier_guided

S = linear_schedule(20, 1e-3, 0.3)
# (t, s): after two that differ, ints are traced as symbols
INTS = ((7, 3), (9, 2), (12, 4), (6, 3), (11, 1), (8, 5))
TENSORS = tuple((torch.tensor([t, 5]), torch.tensor([s, 0])) for t, s in INTS)
ORACLE = GaussianMixtureOracle(
    S, [1.0, 3.0], [[0.5, -0.3, 0.1], [-0.6, 0.2, 0.1]], [0.1, 0.02]
)


def net(x, t, y=None):
    return x * 0.5 + 1e-3 * t[:, None] + (0 if y is None else y[:, None])


GUIDED = guided(Denoiser(net, S), 1, 3.0)


def stepped(sampler):
    def step(x, eps, t, s):
        pred = Denoiser(net, S, EPS)(x, t)
        return sampler.step(S, x, pred, t, s, eps, (t + 1, pred))

    return step


# (x, ε, t, s) -> tensors; t and s are ints, or one of each for each image
ANY = dict(
    at=lambda x, eps, t, s: S.at(t),
    q_sample=lambda x, eps, t, s: q_sample(S, x, t, eps),
    transition=lambda x, eps, t, s: transition(S, s, t),
    from_clean=lambda x, eps, t, s: transition(S, 0, t),
    posterior=lambda x, eps, t, s: q_posterior(S, x, eps, t, s).mean,
    density=lambda x, eps, t, s: q_posterior(S, x, eps, t).log_prob(x),
    kl=lambda x, eps, t, s: gaussian_kl(
        q_posterior(S, x, eps, t), q_posterior(S, eps, x, t)
    ),
    target=lambda x, eps, t, s: V.target(S, x, eps, t),
    eps=lambda x, eps, t, s: EPS.decode(S, eps, x, t).x0,
    v=lambda x, eps, t, s: V.decode(S, eps, x, t).eps,
    clip=lambda x, eps, t, s: Denoiser(net, S, V, (-0.5, 0.5))(x, t).eps,
    threshold=lambda x, eps, t, s: Denoiser(net, S, V, DynamicThreshold())(x, t).x0,
    guided=lambda x, eps, t, s: GUIDED(x, t).x0,
    min_snr=lambda x, eps, t, s: min_snr_weight(S, t, V),
    vlb=lambda x, eps, t, s: vlb_weight(S, t),
)
WITH_TENSORS = dict(
    loss=lambda x, eps, t, s: ddpm_loss(
        net, S, x, t, eps, V, weight=min_snr_weight(S, t, V)
    ),
    oracle=lambda x, eps, t, s: ORACLE(x, t, torch.tensor([0, 2])),
)
WITH_INTS = dict(
    ddpm=stepped(DDPM()),
    beta=stepped(DDPM(variance="beta")),
    ddim=stepped(DDIM()),
    eta=stepped(DDIM(eta=0.5)),
    solver=stepped(DPMSolver()),
    up=lambda x, eps, t, s: noise_up(S, x, s, t, eps),
)
CASES = [
    *((name, f, times) for name, f in ANY.items() for times in (INTS, TENSORS)),
    *((name, f, TENSORS) for name, f in WITH_TENSORS.items()),
    *((name, f, INTS) for name, f in WITH_INTS.items()),
]


@pytest.mark.parametrize(
    "f, times",
    [case[1:] for case in CASES],
    ids=[f"{name}-{'int' if times is INTS else 'tensor'}" for name, _, times in CASES],
)
def test_a_step_is_traced_in_one_piece_and_seldom(f, times):
    "fullgraph: nothing is read from a tensor, on whatever device it may be."
    torch._dynamo.reset()
    S.at(TENSORS[0][0])  # the table's copy for the device is made, once
    counter = CompileCounter()
    compiled = torch.compile(f, fullgraph=True, backend=counter)
    x, eps = images(0, 2, 3), images(1, 2, 3)
    for t, s in times:
        torch.testing.assert_close(
            compiled(x, eps, t, s), f(x, eps, t, s), rtol=1e-14, atol=1e-15
        )
    assert counter.frame_count <= (3 if times is INTS else 1)


SEEN = classifier_guided(
    Denoiser(net, S), lambda x, t: -(x - 0.3).pow(4).sum(1) * t, 2.0
)


def test_a_denoiser_with_a_classifier_is_traced_in_one_piece():
    "It takes a gradient, which torch traces where it is told to."
    torch._dynamo.reset()
    x, (t, _) = images(0, 2, 3), TENSORS[0]
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(SEEN.model, fullgraph=True, backend="eager")
        got = compiled(x, t)
    torch.testing.assert_close(got, SEEN.model(x, t), rtol=1e-14, atol=1e-15)


DEVICE = torch.device("meta")  # where a tensor has a place, a shape and no values
THERE = torch.zeros(2, 3, device=DEVICE)


@pytest.mark.parametrize("name, f", {**ANY, **WITH_TENSORS, **WITH_INTS}.items())
def test_what_is_computed_lies_where_its_input_lies(name, f):
    t, s = (times.to(DEVICE) for times in TENSORS[0])
    if name not in WITH_INTS:
        there = f(THERE, THERE, t, s)
        for made in there if isinstance(there, tuple) else (there,):
            assert made.device == DEVICE
    if name not in WITH_TENSORS:  # what has no image in it stays on the CPU
        made = f(THERE, THERE, 7, 3)
        of_times = name in ("at", "transition", "from_clean", "min_snr", "vlb")
        assert of_times or made.device == DEVICE


PLAIN = Denoiser(net, S)
LABELS = torch.tensor([1, 2])
WALKS = dict(
    ddpm=lambda x, y: sample(PLAIN, x, DDPM(3), y=y),
    ddim=lambda x, y: sample(PLAIN, x, DDIM(3, 0.5), y=y),
    solver=lambda x, y: sample(PLAIN, x, DPMSolver(3), y=y),
    encode=lambda x, y: ddim_encode(PLAIN, x, DDIM(3), y=y),
    bound=lambda x, y: vlb_terms(PLAIN, x, levels=None, y=y).total,
    beta=lambda x, y: vlb_terms(PLAIN, x, levels=None, variance="beta").total,
    varied=lambda x, y: image_to_image(PLAIN, x, 7, x, DDPM(3), y=y),
    parted=lambda x, y: sample_with_shared_start(PLAIN, x, 2, 7, DDPM(3), y=y),
    between=lambda x, y: interpolate(PLAIN, x, x, [0.5], DDIM(3), mixing=lerp),
    mixed=lambda x, y: variance_preserving_mix(x, x, torch.tensor([0.1, 0.2])),
    guided=lambda x, y: sample(guided(PLAIN, LABELS, LABELS * 2.0), x, DDIM(3)),
    oracle=lambda x, y: guided(Denoiser(ORACLE, S), LABELS, 3.0)(x, 7).eps,
    alone=lambda x, y: guided(Denoiser(ORACLE, S), 1, 1.0)(x, 7).eps,
    classified=lambda x, y: SEEN(x, 7, y).x0,
    components=lambda x, y: ORACLE(x, LABELS.to(x.device), y),
    variance=lambda x, y: ORACLE.variance(x, 7, y),
    density=lambda x, y: ORACLE.log_prob(x, 7),
)


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_whole_walk_stays_where_it_begins(walk):
    assert walk(THERE, LABELS.to(DEVICE)).device == DEVICE


def curved(x, t, y=None):
    "A network whose answer is nowhere a straight line."
    return torch.sin(2 * x) + (0 if y is None else x.square() * y[:, None])


def taken(sampler, t=7, s=3):
    "One step, from x_t, what is predicted (or the noise) and what was before."

    def step(x, eps):
        pred = EPS.decode(S, eps, x, t)
        before = EPS.decode(S, eps.sin(), x, t + 4)
        return sampler.step(S, x, pred, t, s, eps.cos(), (t + 4, before))

    return step


STEPS = dict(
    ddpm=taken(DDPM()),
    beta=taken(DDPM(variance="beta")),
    ddpm_to_0=taken(DDPM(), 1, 0),
    ddim=taken(DDIM()),
    eta=taken(DDIM(eta=0.5)),
    eta_to_0=taken(DDIM(eta=1.0), 1, 0),
    order_1=taken(DPMSolver(order=1)),
    order_2=taken(DPMSolver()),
    solver_to_0=taken(DPMSolver(), 1, 0),
    guided=lambda x, eps: guided(Denoiser(curved, S), 1, 3.0)(x, 7).x0 + eps,
    in_one_call=lambda x, eps: guided(Denoiser(ORACLE, S), 1, 3.0)(x, 7).x0 + eps,
    clipped=lambda x, eps: Denoiser(curved, S, V, (-9, 9))(x, 7).eps + eps,
    prior=lambda x, eps: _prior(S, x) + eps,
    bound=lambda x, eps: _step_kl(S, x - eps.sin(), 7, "posterior"),
    bound_beta=lambda x, eps: _step_kl(S, x - eps.sin(), 7, "beta"),
    up=lambda x, eps: noise_up(S, x, 3, 7, eps),
)


@pytest.mark.parametrize("f", STEPS.values(), ids=STEPS)
def test_gradients_through_a_step(f):
    x, eps = (images(seed, 2, 3).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(f, (x, eps), rtol=1e-5, atol=1e-7)


def test_walks_and_bounds_hold_no_gradients():
    x = images(0, 2, 3).requires_grad_()
    denoiser = Denoiser(curved, S)
    assert not vlb_terms(denoiser, x, levels=None).total.requires_grad
    assert not sample(denoiser, x, DDIM(3)).requires_grad
    assert not ddim_encode(denoiser, x, DDIM(3)).requires_grad
    assert torch.is_grad_enabled()


def test_gradients_through_the_closed_forms():
    "Against finite differences, in float64."
    x, eps = (images(seed, 2, 3).requires_grad_() for seed in (0, 1))
    t = torch.tensor([7, 1])
    for f in (
        lambda x, eps: q_sample(S, x, t, eps),
        lambda x, eps: q_posterior(S, x, eps, t).mean,
        lambda x, eps: q_posterior(S, x, eps, 5, 2).log_prob(x),
        lambda x, eps: V.target(S, x, eps, t),
        lambda x, eps: V.decode(S, x, eps, t).x0,
        lambda x, eps: EPS.decode(S, x, eps, t).eps,
        lambda x, eps: clip_prediction(S, X0.decode(S, x, eps, t), eps, t, (-9, 9)).eps,
        lambda x, eps: DynamicThreshold(0.9)(3 * x) + 0 * eps,
        lambda x, eps: ddpm_loss(lambda x, t: x.sin(), S, x, t, eps, V),
        lambda x, eps: ORACLE(x, t) + eps,
        lambda x, eps: ORACLE.variance(x, t) + eps,
        lambda x, eps: ORACLE.log_prob(x, t) + eps.sum(1),
    ):
        assert torch.autograd.gradcheck(f, (x, eps), rtol=1e-5, atol=1e-7)


# on both sides of the borders at r − 1 = ±0.1 and −½, and on them
RATIOS = [1e-6, 0.3, 0.499, 0.5, 0.501, 0.89, 0.9, 0.91, 1.0, 1.09, 1.1, 1.11, 7.0, 1e6]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("var", [1.0, 0.02])
def test_gradients_of_the_divergence(ratio, var):
    """½ (1/v_q − 1/v_p) in v_p, ½ (1/v_q − v_p/v_q² − d²/v_q²) in v_q, d/v_q in μ_p and
    −d/v_q in μ_q."""
    values = torch.tensor([0.3, ratio * var, -0.1, var], dtype=torch.float64)
    a, v, b, w = values.requires_grad_()
    (slope,) = torch.autograd.grad(gaussian_kl(Gaussian(a, v), Gaussian(b, w)), values)
    by_w = (1 - v / w - (a - b) ** 2 / w) / 2
    want = torch.stack([a - b, (1 - w / v) / 2, b - a, by_w])
    torch.testing.assert_close(slope, want / w, rtol=1e-12, atol=1e-12 / var)


GAPS = [1e-7, 3e-7, 1e-5, 1e-3, 0.05, 0.0999, 0.1001, 0.5, 9.0]
DIGITS = [(torch.float32, 2e-6), (torch.float64, 1e-14)]


@pytest.mark.parametrize("dtype, digits", DIGITS, ids=["float32", "float64"])
@pytest.mark.parametrize("gap", GAPS)
def test_the_divergence_keeps_its_digits(dtype, digits, gap):
    mpmath = pytest.importorskip("mpmath")
    w = torch.tensor(0.02, dtype=dtype)
    for v in (w * (1 + gap), w * max(1 - gap, 1e-3)):
        with mpmath.workdps(50):
            r = mpmath.mpf(v.item()) / mpmath.mpf(w.item())
            exact = float((r - 1 - mpmath.log(r)) / 2)
        kl = gaussian_kl(Gaussian(0 * v, v), Gaussian(0 * w, w))
        assert kl.item() == pytest.approx(exact, rel=digits, abs=0)


def test_gradients_of_the_discrete_likelihood():
    "In the middle, in the outermost bins, and far out in a tail, in mean and variance."
    x0 = torch.tensor([[-1.0, -1.0 / 3, 1.0 / 3, 1.0]], dtype=torch.float64)
    mean = torch.tensor([[-1.2, 0.1, -2.0, 0.4]], dtype=torch.float64)
    var = torch.tensor(0.05, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda m, v: decoder_log_prob(Gaussian(m, v), x0, 4),
        (mean.requires_grad_(), var.requires_grad_()),
        rtol=1e-5,
    )


class Waits(TorchDispatchMode):
    "Which operations carry something from a device to the processor."

    def __init__(self, device):
        super().__init__()
        self.device, self.found = device, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        there = [x for x in args if isinstance(x, torch.Tensor)]
        there = [x for x in there if x.device.type == self.device]
        if there and isinstance(out, torch.Tensor) and out.device.type == "cpu":
            self.found.append(str(operation))
        return out


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_no_step_waits_for_the_device(device, monkeypatch):
    """With tensors that have a device and no values: what would read one fails.

    Times are on the device, and for MPS, which has no float64, on the CPU."""
    for module in ("gaussian", "schedule", "forward", "prediction"):
        monkeypatch.setattr(f"ddpm_lit.{module}.readable", lambda x: False)
    net = lambda x, t: x * t.reshape(-1, 1)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits(device) as waits:
        x = torch.empty(2, 3, device=device)
        place = "cpu" if device == "mps" else device
        t = torch.ones(2, dtype=torch.int64, device=place)
        for param in (EPS, X0, V):
            weight = min_snr_weight(S, t, param)
            loss = ddpm_loss(net, S, x, t, x, param, weight=weight)
            assert loss.device.type == device
            for sampler in (DDPM(5), DDIM(5, eta=1.0), DPMSolver(5)):
                pred = Denoiser(net, S, param, (-1, 1))(x, 9)
                x_s = sampler.step(S, x, pred, 9, 4, x, (12, pred))
                assert x_s.device.type == device
        assert waits.found == []
        loss.cpu()
    assert waits.found  # what is looked for is seen where it is

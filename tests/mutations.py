"""Mistakes made on purpose, to see whether the pages and the tests notice: `python
tests/mutations.py [part of a name ...]`.

Each mutation replaces one piece of an exported formula by a near miss: a sign, an
index, a root, a coefficient. It is made in a temporary copy, both in the module and
in the notebook that exports it, and must be found exactly once in either. Then the
page's code is run, or a test file, whichever the mutation names as its judges. A
mutation counts as caught if every judge fails, and fails for the right reason: an
assertion or a refused value, not a crash.

Every judge is a process of its own, forked from one that has imported everything
heavy, but never the package: that comes from the copy. A page runs once for all its
mutations: each is tried in a fork of that run, from the cell in which the mistake is
made."""
import atexit
import functools
import gc
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGE = "page"  # the judge that is the notebook itself
HEAVY = ("torch torch._dynamo torch.utils.tensorboard torchvision accelerate.tracking diffusers.models.unets.unet_2d sympy sympy.physics.units sympy.tensor.tensor "
         "matplotlib.pyplot scipy.stats sklearn.calibration IPython.display pytest hypothesis").split()


@dataclass(frozen=True)
class Mutation:
    "One mistake: in `module`, the text `old` becomes `new`; `judges` are PAGE, files in tests/, or single tests of long files. The first is the owner, whom the slow suite asks."
    name: str
    module: str
    old: str
    new: str
    judges: tuple[str, ...]


def both(test: str) -> tuple[str, ...]: return PAGE, test


MUTATIONS = [
    Mutation("KL with the means added", "gaussian", "(p.mean - q.mean) ** 2", "(p.mean + q.mean) ** 2", both("test_forward_posterior.py")),
    Mutation("a draw scaled by the variance, not its root", "gaussian", "self.var.sqrt() * noise", "self.var * noise", both("test_forward_posterior.py")),
    Mutation("log density without its half", "gaussian", "return -0.5 * ((x", "return -1.0 * ((x", both("test_forward_posterior.py")),
    Mutation("log density with the logarithm of σ", "gaussian", "self.var.log() + math", "self.var.sqrt().log() + math", both("test_forward_posterior.py")),
    Mutation("log density divided by σ", "gaussian", "(x - self.mean) ** 2 / self.var +", "(x - self.mean) ** 2 / self.var.sqrt() +", both("test_forward_posterior.py")),
    Mutation("KL divided by the first variance", "gaussian", "(p.mean - q.mean) ** 2 / q.var)", "(p.mean - q.mean) ** 2 / p.var)", both("test_forward_posterior.py")),
    Mutation("KL with the sign of the log ratio flipped", "gaussian", "(excess - log_ratio + (p.mean", "(excess + log_ratio + (p.mean", both("test_forward_posterior.py")),
    Mutation("KL with the ratio of variances turned over", "gaussian", "(p.var / q.var).log()", "(q.var / p.var).log()", both("test_forward_posterior.py")),
    Mutation("KL with the excess over the first variance", "gaussian", "(p.var - q.var) / q.var", "(p.var - q.var) / p.var", both("test_forward_posterior.py")),
    Mutation("KL that takes log1p where it is clamped", "gaussian", "torch.where(excess < -0.5,", "torch.where(excess < -0.9,", (PAGE,)),
    Mutation("one variance per column of pixels accepted", "gaussian", "if var and (len(var) != len(mean) or any(", "if var and (any(", (PAGE,)),
    Mutation("a variance for each column of pixels accepted", "gaussian", "if var and (len(var) != len(mean)", "if False and (len(var) != len(mean)", (PAGE,)),

    Mutation("cosine without the square", "schedule", "f = angle.cos() ** 2", "f = angle.cos()", both("test_schedule.py")),
    Mutation("beta over the later alpha_bar", "schedule", "-self.alpha_bar.diff() / self.alpha_bar[:-1]", "-self.alpha_bar.diff() / self.alpha_bar[1:]", both("test_schedule.py")),
    Mutation("SNR of amplitudes", "schedule", "return self.alpha_bar / (1 - self.alpha_bar)", "return (self.alpha_bar / (1 - self.alpha_bar)).sqrt()", both("test_schedule.py")),
    Mutation("scaled linear without its roots", "schedule", "torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end)", "torch.linspace(beta_start, beta_end", both("test_schedule.py")),
    Mutation("zero terminal SNR shifted, not stretched", "schedule", "* root[0] / (root[0] - root[-1])", "", both("test_schedule.py")),
    Mutation("linear from 0", "schedule", "torch.linspace(beta_start, beta_end, T, dtype=torch.float64))", "torch.linspace(0, beta_end, T + 1, dtype=torch.float64)[1:])", both("test_schedule.py")),
    Mutation("scaled linear without its square", "schedule", "math.sqrt(beta_end), T, dtype=torch.float64) ** 2)", "math.sqrt(beta_end), T, dtype=torch.float64))", (PAGE,)),
    Mutation("cosine without the offset below", "schedule", "/ (1 + s) * math.pi / 2", "* math.pi / 2", (PAGE,)),
    Mutation("cosine over one step more", "schedule", "torch.arange(T + 1, dtype=torch.float64) / T + s", "torch.arange(T + 1, dtype=torch.float64) / (T + 1) + s", both("test_schedule.py")),
    Mutation("cosine without its cut", "schedule", ".clamp(max=max_beta)", ".clamp(max=1)", both("test_schedule.py")),
    Mutation("sigmoid that runs the other way", "schedule", "* (end - start) + start) / tau)", "* (start - end) + end) / tau)", (PAGE,)),
    Mutation("sigmoid that is not stretched to 1", "schedule", "(g[-1] - g) / (g[-1] - g[0])", "(g[-1] - g) / g[-1]", both("test_schedule.py")),
    Mutation("sigmoid without its temperature", "schedule", "(end - start) + start) / tau)", "(end - start) + start))", (PAGE,)),
    Mutation("zero terminal SNR of shares, not roots", "schedule", "root = schedule.alpha_bar[1:].sqrt()", "root = schedule.alpha_bar[1:]", both("test_schedule.py")),
    Mutation("zero terminal SNR without the last square", "schedule", "scaled[1:] ** 2", "scaled[1:]", both("test_schedule.py")),
    Mutation("zero terminal SNR that stretches by the whole", "schedule", "/ (root[0] - root[-1])", "/ root[0]", both("test_schedule.py")),
    Mutation("alpha upside down", "schedule", "self.alpha_bar[1:] / self.alpha_bar[:-1]]", "self.alpha_bar[:-1] / self.alpha_bar[1:]]", both("test_schedule.py")),
    Mutation("SNR over the whole", "schedule", "return self.alpha_bar / (1 - self.alpha_bar)", "return self.alpha_bar / (1 + self.alpha_bar)", both("test_schedule.py")),
    Mutation("ᾱ as a product of roots", "schedule", "(1 - betas).cumprod(0)", "(1 - betas).sqrt().cumprod(0)", both("test_schedule.py")),
    Mutation("ᾱ with a sum in its exponent", "schedule", "(1 - betas).cumprod(0)", "(-betas.cumsum(0)).exp()", both("test_schedule.py")),

    Mutation("noise scaled by 1 - alpha_bar, not its root", "forward", "expand((1 - abar_t).sqrt(), x0)", "expand(1 - abar_t, x0)", both("test_forward_posterior.py")),
    Mutation("stride over the wrong alpha_bar", "forward", "(abar_s - abar_t) / abar_s", "(abar_s - abar_t) / abar_t", both("test_forward_posterior.py")),
    Mutation("signal scaled by alpha_bar, not its root", "forward", "expand(abar_t.sqrt(), x0)", "expand(abar_t, x0)", both("test_forward_posterior.py")),
    Mutation("noise with its sign flipped", "forward", "* at_least_float32(x0) + expand((1", "* at_least_float32(x0) - expand((1", both("test_forward_posterior.py")),
    Mutation("noising in half precision", "forward", "* at_least_float32(x0) +", "* x0 +", (PAGE,)),
    Mutation("noise of another shape accepted", "forward", "if eps.shape != x0.shape:", "if False:", both("test_forward_posterior.py")),
    Mutation("integer images accepted", "forward", "if not x0.is_floating_point():", "if False:", (PAGE,)),
    Mutation("share of a stride turned over", "forward", "return abar_t / abar_s,", "return abar_s / abar_t,", both("test_forward_posterior.py")),
    Mutation("noise of a stride with the later alpha_bar alone", "forward", "(abar_s - abar_t) / abar_s", "1 - abar_t", both("test_forward_posterior.py")),
    Mutation("a stride of no length accepted", "forward", "(s >= t)", "(s > t)", both("test_forward_posterior.py")),
    Mutation("the first generator for all images", "forward", "torch.randn(shape[1:], generator=g,", "torch.randn(shape[1:], generator=generator[0],", both("test_forward_posterior.py")),
    Mutation("uniform noise for each image", "forward", "torch.randn(shape[1:], generator=g,", "torch.rand(shape[1:], generator=g,", (PAGE,)),
    Mutation("uniform noise for the batch", "forward", "torch.randn(shape, generator=generator,", "torch.rand(shape, generator=generator,", (PAGE,)),
    Mutation("another number of generators accepted", "forward", "if len(generator) != shape[0]:", "if False:", both("test_forward_posterior.py")),

    Mutation("posterior mean with alpha_bar of t for that of s", "posterior", "c0 = abar_s.sqrt() * beta", "c0 = abar_t.sqrt() * beta", both("test_forward_posterior.py")),
    Mutation("posterior mean without a root", "posterior", "ct = alpha.sqrt()", "ct = alpha", both("test_forward_posterior.py")),
    Mutation("posterior mean with its coefficients exchanged", "posterior", "expand(c0, x0) * at_least_float32(x0) + expand(ct, xt)", "expand(ct, x0) * at_least_float32(x0) + expand(c0, xt)", both("test_forward_posterior.py")),
    Mutation("beta for the posterior variance", "posterior", "(1 - abar_s) * beta / (1 - abar_t), xt", "beta, xt", both("test_forward_posterior.py")),
    Mutation("posterior variance with its two times exchanged", "posterior", "(1 - abar_s) * beta / (1 - abar_t), xt", "(1 - abar_t) * beta / (1 - abar_s), xt", both("test_forward_posterior.py")),
    Mutation("posterior mean without the noise of s", "posterior", "ct = alpha.sqrt() * (1 - abar_s)", "ct = alpha.sqrt() * (1 - abar_t)", both("test_forward_posterior.py")),
    Mutation("posterior mean with the root of beta", "posterior", "abar_s.sqrt() * beta / (1", "abar_s.sqrt() * beta.sqrt() / (1", both("test_forward_posterior.py")),
    Mutation("posterior mean with its sign flipped", "posterior", "at_least_float32(x0) + expand(ct, xt)", "at_least_float32(x0) - expand(ct, xt)", both("test_forward_posterior.py")),
    Mutation("standard deviation for the posterior variance", "posterior", "expand((1 - abar_s) * beta / (1 - abar_t), xt)", "expand(((1 - abar_s) * beta / (1 - abar_t)).sqrt(), xt)", both("test_forward_posterior.py")),
    Mutation("two steps back by default", "posterior", "s = t - 1 if s is None", "s = t - 2 if s is None", both("test_forward_posterior.py")),
    Mutation("images of another shape accepted", "posterior", "if x0.shape != xt.shape:", "if False:", both("test_forward_posterior.py")),

    Mutation("decode with the sign of the noise flipped", "prediction", "- expand(noise / det, xt) * out", "+ expand(noise / det, xt) * out", both("test_prediction.py")),
    Mutation("v with its sign flipped", "prediction", "return -noise, signal", "return noise, -signal", both("test_prediction.py")),
    Mutation("clipping that keeps the old epsilon", "prediction", "X0.decode(schedule, pred.x0.clamp(low, high), xt, t)", "Prediction(pred.x0.clamp(low, high), pred.eps)", both("test_prediction.py")),
    Mutation("min-SNR weight of v without + 1", "prediction", "snr.clamp(max=gamma) / (snr + 1)", "snr.clamp(max=gamma) / snr", both("test_prediction.py")),
    Mutation("min-SNR clamped from the other side", "prediction", "(gamma / snr).clamp(max=1)", "(gamma / snr).clamp(min=1)", both("test_prediction.py")),
    Mutation("target with its coefficients exchanged", "prediction", "expand(a, x0) * at_least_float32(x0) + expand(b, eps) *", "expand(b, x0) * at_least_float32(x0) + expand(a, eps) *", (PAGE,)),
    Mutation("determinant with a plus", "prediction", "det = signal * b - noise * a", "det = signal * b + noise * a", (PAGE,)),
    Mutation("decoded noise scaled by noise for signal", "prediction", "expand(signal / det, xt) * out", "expand(noise / det, xt) * out", (PAGE,)),
    Mutation("dynamic threshold that is not divided", "prediction", "return x0.clamp(-s, s) / s", "return x0.clamp(-s, s)", (PAGE,)),
    Mutation("dynamic threshold that clips at one first", "prediction", "return x0.clamp(-s, s) / s", "return x0.clamp(-1, 1) / s", (PAGE,)),
    Mutation("dynamic threshold of signed values", "prediction", "size = x0.abs().flatten(1)", "size = x0.flatten(1)", (PAGE,)),
    Mutation("dynamic threshold without its least", "prediction", "s.clamp(self.least, self.most)", "s.clamp(1e-9, self.most)", (PAGE,)),
    Mutation("dynamic threshold without its most", "prediction", "s.clamp(self.least, self.most)", "s.clamp(min=self.least)", (PAGE,)),
    Mutation("one threshold for all images of a batch", "prediction", "s = torch.cat([part.quantile(self.quantile, dim=1) for part in parts])", "s = x0.abs().flatten().quantile(self.quantile).expand(len(x0))", (PAGE,)),
    Mutation("dynamic threshold that keeps the old epsilon", "prediction", "X0.decode(schedule, clip(pred.x0), xt, t)", "Prediction(clip(pred.x0), pred.eps)", (PAGE,)),
    Mutation("loss summed over the coordinates", "prediction", ".square().flatten(1).mean(1)", ".square().flatten(1).sum(1)", (PAGE,)),
    Mutation("loss of absolute errors", "prediction", "- at_least_float32(out)).square()", "- at_least_float32(out)).abs()", (PAGE,)),
    Mutation("loss without its weight", "prediction", "loss = weight.to(loss) * loss", "loss = loss", (PAGE,)),
    Mutation("loss with the root of its weight", "prediction", "loss = weight.to(loss) * loss", "loss = weight.to(loss).sqrt() * loss", (PAGE,)),
    Mutation("loss summed over the batch", "prediction", "return loss.mean() if", "return loss.sum() if", (PAGE,)),
    Mutation("min-SNR weight of epsilon as 0/0 at SNR zero", "prediction", "(gamma / snr).clamp(max=1)", "snr.clamp(max=gamma) / snr", (PAGE,)),
    Mutation("min-SNR weight of x_0 cut from below", "prediction", "X0: snr.clamp(max=gamma), V", "X0: snr.clamp(min=gamma), V", (PAGE,)),

    Mutation("nats for bits", "elbo", "nats.flatten(1).mean(1) / math.log(2)", "nats.flatten(1).mean(1)", both("test_elbo_oracle.py")),
    Mutation("terms averaged, not added", "elbo", "self.prior + self.kl.sum(1)", "self.prior + self.kl.mean(1)", both("test_elbo_oracle.py")),
    Mutation("prior without the root", "elbo", "Gaussian(abar_T.sqrt() * x0, 1 - abar_T)", "Gaussian(abar_T * x0, 1 - abar_T)", both("test_elbo_oracle.py")),
    Mutation("alpha for the larger variance", "elbo", "transition(schedule, t - 1, t)[1]", "transition(schedule, t - 1, t)[0]", both("test_elbo_oracle.py")),
    Mutation("decoder with its first bin cut off", "elbo", "torch.where(x0 < -1 + half, -math.inf,", "torch.where(x0 < -2, -math.inf,", both("test_elbo_oracle.py")),
    Mutation("the eps weight without its root of alpha_bar", "elbo", "det = signal * b - noise * a\n    if", "det = abar_t * b - noise * a\n    if", (PAGE,)),
    Mutation("vlb weight without its half", "elbo", "return abar_s * beta / (2 * share", "return abar_s * beta / (share", (PAGE,)),
    Mutation("vlb weight with alpha_bar of t for that of s", "elbo", "return abar_s * beta / (2", "return abar_t * beta / (2", (PAGE,)),
    Mutation("vlb weight with the bar at s in its denominator", "elbo", "(2 * share * (1 - abar_t) * det**2)", "(2 * share * (1 - abar_s) * det**2)", (PAGE,)),
    Mutation("vlb weight with the determinant unsquared", "elbo", "(1 - abar_t) * det**2)", "(1 - abar_t) * det)", (PAGE,)),
    Mutation("the two variances exchanged in the weight", "elbo", 'if variance == "posterior" else 1.0', 'if variance == "beta" else 1.0', (PAGE,)),
    Mutation("the weight at t = 1 with a point mass", "elbo", "torch.where(abar_s < 1, (1 - abar_s) / (1 - abar_t), 1.0)", "((1 - abar_s) / (1 - abar_t))", (PAGE,)),
    Mutation("decoder with bins of the distance between levels", "elbo", "half, std = 1 / (levels - 1), p.var.sqrt()", "half, std = 2 / (levels - 1), p.var.sqrt()", both("test_elbo_oracle.py")),
    Mutation("decoder with as many bins as levels", "elbo", "half, std = 1 / (levels - 1), p.var.sqrt()", "half, std = 1 / levels, p.var.sqrt()", both("test_elbo_oracle.py")),
    Mutation("decoder with the variance for the standard deviation", "elbo", "half, std = 1 / (levels - 1), p.var.sqrt()", "half, std = 1 / (levels - 1), p.var", (PAGE,)),
    Mutation("decoder without its mirror", "elbo", "right = x0 > p.mean", "right = x0 > math.inf", (PAGE,)),
    Mutation("decoder with its last bin cut off", "elbo", "torch.where(x0 > 1 - half, math.inf,", "torch.where(x0 > 2, math.inf,", both("test_elbo_oracle.py")),
    Mutation("the likelihood with its sign flipped", "elbo", "_bits_per_dim(-log_p)", "_bits_per_dim(log_p)", both("test_elbo_oracle.py")),
    Mutation("the last step with the variance of the second", "elbo", "last = Gaussian(guess, schedule.beta[1])", "last = Gaussian(guess, schedule.beta[2])", (PAGE,)),
    Mutation("KL terms stored one time late", "elbo", "kl[:, t - 2] =", "kl[:, (t - 1) % (schedule.T - 1)] =", both("test_elbo_oracle.py")),
    Mutation("total without the prior", "elbo", "return self.prior + self.kl.sum(1) + self.reconstruction", "return self.kl.sum(1) + self.reconstruction", both("test_elbo_oracle.py")),
    Mutation("prior against a wider Gaussian", "elbo", "torch.ones_like(abar_T)", "2 * torch.ones_like(abar_T)", both("test_elbo_oracle.py")),
    Mutation("values off the grid accepted", "elbo", "(off > 0.01).any()", "(off > 1).any()", (PAGE,)),
    Mutation("the clipped prediction thrown away", "elbo", "guess = denoiser(q_sample", "guess = Denoiser(denoiser.model, schedule, denoiser.param)(q_sample", (PAGE,)),

    Mutation("oracle's clean image without a root", "oracle", "abar.sqrt() * self.variances.to(abar) / var", "abar * self.variances.to(abar) / var", both("test_elbo_oracle.py")),
    Mutation("oracle's noise without a root", "oracle", "(1 - abar).sqrt() / var", "(1 - abar) / var", both("test_elbo_oracle.py")),
    Mutation("oracle's noise by the weights alone", "oracle", "(r * eps).sum(1), t)", "(_like(self.weights.to(r)[None], r) * eps).sum(1), t)", (PAGE,)),
    Mutation("oracle's responsibilities without the weights", "oracle", "self.weights.log().to(abar) -", "-", (PAGE,)),
    Mutation("oracle's density of one coordinate for all", "oracle", "self.means[0].numel() / 2 * (2", "0.5 * (2", (PAGE,)),
    Mutation("oracle's exponent without its half", "oracle", "/ (2 * var).to(x)", "/ var.to(x)", (PAGE,)),
    Mutation("oracle's distance with alpha_bar for its root", "oracle", "_like(abar.sqrt(), x[:, None])", "_like(abar, x[:, None])", (PAGE,)),
    Mutation("oracle's log density of the best component", "oracle", "[-1].logsumexp(1)", "[-1].amax(1)", (PAGE,)),
    Mutation("oracle's variance within the components alone", "oracle", "(within + (x0 - mean).square())", "within", (PAGE,)),
    Mutation("oracle's variance between the components alone", "oracle", "(within + (x0 - mean).square())", "(x0 - mean).square()", (PAGE,)),
    Mutation("oracle's variance with alpha_bar for 1 - alpha_bar", "oracle", "self.variances.to(abar) * (1 - abar) / var", "self.variances.to(abar) * abar / var", (PAGE,)),
    Mutation("oracle's draws scaled by the variance", "oracle", "self.variances[k].sqrt()", "self.variances[k]", (PAGE,)),
    Mutation("oracle's draws from all components alike", "oracle", "torch.multinomial(self.weights,", "torch.multinomial(torch.ones_like(self.weights),", (PAGE,)),
    Mutation("null label that is a component", "oracle", "torch.full_like(y, len(self.means))", "torch.full_like(y, len(self.means) - 1)", (PAGE,)),
    Mutation("label that rules out its own component", "oracle", "(torch.arange(K, device=y.device) != y[:, None])", "(torch.arange(K, device=y.device) == y[:, None])", (PAGE,)),
    Mutation("null label that rules out all components", "oracle", " & (y[:, None] < K)", "", (PAGE,)),
    Mutation("labels not looked at", "oracle", "if y is not None: logits = ", "if y is not None: _ = ", (PAGE,)),

    Mutation("the last step adds noise", "ddpm", "if s == 0: return post.mean", "if t == 0: return post.mean", both("test_samplers.py")),
    Mutation("both variances the same", "ddpm", 'else transition(schedule, s, t)[1]', 'else post.var', both("test_samplers.py")),
    Mutation("noise scaled by the variance", "ddpm", "post.mean + var.sqrt() * noise", "post.mean + var * noise", both("test_samplers.py")),
    Mutation("trailing times shifted by one stride", "ddpm", "round(Fraction((i + 1) * T, S))", "round(Fraction(i * T + 1, S))", both("test_samplers.py")),
    Mutation("the network asked at the time of arrival", "ddpm", "pred = denoiser(x, t, y)", "pred = denoiser(x, max(s, 1), y)", both("test_samplers.py")),
    Mutation("a walk that ignores clip", "ddpm", "pred = denoiser(x, t, y)", "pred = Denoiser(denoiser.model, denoiser.schedule, denoiser.param)(x, t, y)", both("test_samplers.py")),
    Mutation("the same noise at every step", "ddpm", "draw_noise(x.shape, generator, x.device, x.dtype)", "draw_noise(x.shape, torch.Generator().manual_seed(0), x.device, x.dtype)", (PAGE,)),
    Mutation("linspace that does not reach T", "ddpm", "1 + round(Fraction(i * (T - 1), S - 1))", "1 + round(Fraction(i * (T - 1), S))", both("test_samplers.py")),
    Mutation("leading that starts at the stride", "ddpm", "1 + i * (T // S)", "(i + 1) * (T // S)", both("test_samplers.py")),
    Mutation("quadratic without the square", "ddpm", "i**2 / (S - 1) ** 2", "i / (S - 1)", (PAGE,)),
    Mutation("equal times not pushed apart", "ddpm", "max(up[i], up[i - 1] + 1)", "max(up[i], up[i - 1])", both("test_samplers.py")),
    Mutation("pairs that end at 1", "ddpm", "[*down[1:], 0]", "[*down[1:], 1]", both("test_samplers.py")),
    Mutation("the step of one time for a stride of many", "ddpm", "q_posterior(schedule, pred.x0, x, t, s)", "q_posterior(schedule, pred.x0, x, t, t - 1)", both("test_samplers.py")),

    Mutation("sigma for the direction", "ddim", "direction_var.sqrt() * pred.eps", "var.sqrt() * pred.eps", both("test_samplers.py")),
    Mutation("direction without its root", "ddim", "direction_var.sqrt() * pred.eps", "direction_var * pred.eps", both("test_samplers.py")),
    Mutation("sigma with the root of eta", "ddim", "var = self.eta**2 * beta", "var = self.eta * beta", both("test_samplers.py")),
    Mutation("encoding with the noise of t at s", "ddim", "(x - (1 - abar_s).sqrt() * eps)", "(x - (1 - abar_t).sqrt() * eps)", both("test_samplers.py")),
    Mutation("direction with the noise of t", "ddim", "direction_var = (1 - abar_s) *", "direction_var = (1 - abar_t) *", both("test_samplers.py")),
    Mutation("signal of t for that of s", "ddim", "xs = abar_s.sqrt() * pred.x0", "xs = abar_t.sqrt() * pred.x0", both("test_samplers.py")),
    Mutation("beta for the sigma of DDIM", "ddim", "var = self.eta**2 * beta * (1 - abar_s) / (1 - abar_t)", "var = self.eta**2 * beta", both("test_samplers.py")),
    Mutation("encoding that asks at the lower time", "ddim", "unclipped(x, t, y).eps", "unclipped(x, max(s, 1), y).eps", both("test_samplers.py")),
    Mutation("encoding that arrives with the noise of s", "ddim", "(1 - abar_t).sqrt() * pred.eps", "(1 - abar_s).sqrt() * pred.eps", both("test_samplers.py")),
    Mutation("encoding that clips at the upper time", "ddim", "clip_prediction(schedule, pred, x, s, denoiser.clip)", "clip_prediction(schedule, pred, x, t, denoiser.clip)", (PAGE,)),

    Mutation("log-SNR for its half", "solvers", "return schedule.snr.log() / 2", "return schedule.snr.log()", both("test_solvers.py")),
    Mutation("uniform from minus infinity", "solvers", "max(lam[-1].item(), -5.1)", "max(lam[-1].item(), -99.0)", both("test_solvers.py")),
    Mutation("times one too early", "solvers", "up, i = 1 + torch.bucketize", "up, i = 2 + torch.bucketize", both("test_solvers.py")),
    Mutation("equal times left as they are", "solvers", "up = i + (up - i).cummax(0).values", "up = up + 0 * i", both("test_solvers.py")),
    Mutation("a walk that does not start at T", "solvers", "up[-1] = schedule.T", "up[-1] = max(up[-1] - 1, 1)", both("test_solvers.py")),
    Mutation("a stride in log-SNR, not its half", "solvers", "(alpha * (1 - schedule.at(s)))) / 2", "(alpha * (1 - schedule.at(s))))", both("test_solvers.py")),
    Mutation("a stride with the noise of t for that of s", "solvers", "beta / (alpha * (1 - schedule.at(s)))", "beta / (alpha * (1 - schedule.at(t)))", both("test_solvers.py")),
    Mutation("second order into s = 0", "solvers", "previous is not None and s:", "previous is not None:", both("test_solvers.py")),
    Mutation("1/r for 1/(2r)", "solvers", "h / (2 * _log_stride(schedule, t, u))", "h / _log_stride(schedule, t, u)", both("test_solvers.py")),
    Mutation("r upside down", "solvers", "h / (2 * _log_stride(schedule, t, u))", "_log_stride(schedule, t, u) / (2 * h)", both("test_solvers.py")),
    Mutation("the line followed backwards", "solvers", "* (D - before.x0)", "* (before.x0 - D)", both("test_solvers.py")),
    Mutation("noise kept without its root", "solvers", "keep = ((1 - schedule.at(s)) / (1 - schedule.at(t))).sqrt()", "keep = (1 - schedule.at(s)) / (1 - schedule.at(t))", both("test_solvers.py")),
    Mutation("the image at the strength of t", "solvers", "schedule.at(s).sqrt() * torch.expm1(-h)", "schedule.at(t).sqrt() * torch.expm1(-h)", both("test_solvers.py")),
    Mutation("e^h for e^-h", "solvers", "torch.expm1(-h) * D", "torch.expm1(h) * D", both("test_solvers.py")),
    Mutation("an answer from a later time taken", "solvers", "if u <= t: raise ValueError", "if u < 0: raise ValueError", ("test_solvers.py::test_mistakes_are_refused",)),

    Mutation("a classifier's slope without the root", "guidance", "eps_shift = expand(-scale * (1 - abar_t).sqrt(), slope)", "eps_shift = expand(-scale * (1 - abar_t), slope)", both("test_guidance.py")),
    Mutation("a classifier that pushes away", "guidance", "eps_shift = expand(-scale * (1 - abar_t).sqrt(), slope)", "eps_shift = expand(scale * (1 - abar_t).sqrt(), slope)", both("test_guidance.py")),
    Mutation("a classifier's shift of x_0 over alpha_bar, not its root", "guidance", "(1 - abar_t) / abar_t.sqrt(), slope)", "(1 - abar_t) / abar_t, slope)", both("test_guidance.py")),
    Mutation("the paper's w taken for the scale", "guidance", "return free + expand(scale, free) * (bound - free)", "return bound + expand(scale, free) * (bound - free)", both("test_guidance.py")),
    Mutation("guidance in the wrong direction", "guidance", "return free + expand(scale, free) * (bound - free)", "return free + expand(scale, free) * (free - bound)", both("test_guidance.py")),
    Mutation("the two halves of the batch exchanged", "guidance", "torch.cat([*none, wanted])", "torch.cat([wanted, *none])", both("test_guidance.py")),
    Mutation("scale 0 answered with the label", "guidance", "scale == 0: return model(x, t, *none)", "scale == 0: return model(x, t, wanted)", both("test_guidance.py")),
    Mutation("scale 1 answered without the label", "guidance", "scale == 1: return model(x, t, wanted)", "scale == 1: return model(x, t, *none)", both("test_guidance.py")),
    Mutation("guided answers combined in half precision", "guidance", "return at_least_float32(free), at_least_float32(bound)", "return free, bound", ("test_guidance.py",)),

    Mutation("slerp that is linear", "editing", "share * torch.sinc(share * turn) / torch.sinc(turn)", "share * torch.sinc(turn) / torch.sinc(turn)", both("test_editing.py")),
    Mutation("slerp with its ends exchanged", "editing", "factor(1 - w) * a + factor(w) * b", "factor(w) * a + factor(1 - w) * b", both("test_editing.py")),
    Mutation("slerp with half of the angle", "editing", "return 2 * torch.atan2(apart, along)", "return torch.atan2(apart, along)", both("test_editing.py")),
    Mutation("constant-variance mixing without roots", "editing", "(1 - w).sqrt() * a + w.sqrt() * b", "(1 - w) * a + w * b", both("test_editing.py")),
    Mutation("interpolation that encodes at half of the times", "editing", "_clean(x0, denoiser.clip), sampler)", "_clean(x0, denoiser.clip), DDIM(timesteps=[t for t, _ in sampler.pairs(denoiser.schedule)][::2]))", ("test_editing.py",)),
    Mutation("interpolation at t with one noise for two", "editing", "eps_a if eps_b is None else eps_b, weights, mixing)", "eps_a, weights, mixing)", both("test_editing.py")),
    Mutation("image to image that starts one index late", "editing", "walk = SubWalk(sampler, start=t)", "walk = SubWalk(sampler, start=max(t - 1, 1))", both("test_editing.py")),
    Mutation("a part that begins at the sampler's next time", "editing", "down = [start, *(t for t in times if self.end < t < start), self.end]", "down = [*(t for t in times if self.end < t <= start), self.end] if start in times else [start, *[t for t in times if self.end < t < start][1:], self.end]", ("test_editing.py",)),
    Mutation("samples parted at the walk's first time", "editing", "denoiser, each, SubWalk(sampler, start=t)", "denoiser, each, SubWalk(sampler)", both("test_editing.py")),
    Mutation("known pixels noised to the time that was left", "editing", "q_sample(schedule, self.x0, s, noise)", "q_sample(schedule, self.x0, t, noise)", both("test_editing.py")),
    Mutation("the mask the other way round", "editing", "torch.where(self.mask, known, self.sampler.step(schedule, x, pred, t, s, noise, previous))", "torch.where(self.mask, self.sampler.step(schedule, x, pred, t, s, noise, previous), known)", both("test_editing.py")),
    Mutation("known pixels noised at s = 0", "editing", "at_least_float32(self.x0) if s == 0 else", "at_least_float32(self.x0) * 0.999 if s == 0 else", both("test_editing.py")),
    Mutation("the way up with too little noise", "editing", "beta.sqrt() * at_least_float32(eps)", "beta * at_least_float32(eps)", both("test_editing.py")),
    Mutation("the way up without its shrinking", "editing", "return alpha.sqrt() * at_least_float32(xs)", "return alpha * at_least_float32(xs)", both("test_editing.py")),
    Mutation("resampling that never goes up", "editing", "if again:", "if again > 99:", both("test_editing.py")),

    Mutation("grey levels over their number", "images", "- (levels - 1)) / (levels - 1)", "- (levels - 1)) / levels", both("test_data.py")),
    Mutation("a part with the labels of the first pictures", "images", "known if known is None else known[index] for", "known if known is None else known[:len(index)] for", both("test_data.py")),
    Mutation("a fingerprint of the first thousand", "images", "min(len(self), 1000)) * len(self) // k", "min(len(self), 1000)) * 1", ("test_data.py",)),

    Mutation("a crop of 148 pixels at any size", "image_files", "float(min(share * im.width, im.height))", "float(min(148, im.height))", both("test_files.py")),
    Mutation("a square between whole pixels only", "image_files", "else (length - side) / 2 for", "else (length - side) // 2 for", both("test_files.py")),
    Mutation("sixteen bits clipped to eight", "image_files", "((deep + 128) // 257)", "deep.clip(0, 255)", both("test_files.py")),
    Mutation("sixteen bits without rounding", "image_files", "((deep + 128) // 257)", "(deep // 257)", ("test_files.py",)),
    Mutation("transparency laid on black", "image_files", 'Image.new("RGBA", im.size, "white")', 'Image.new("RGBA", im.size, "black")', both("test_files.py")),
    Mutation("photographs left on their side", "image_files", "ImageOps.exif_transpose(im)", "im.copy()", both("test_files.py")),
    Mutation("files sorted as text", "image_files", 'sorted(wanted, key=_parts)', "sorted(wanted)", ("test_files.py",)),
    Mutation("a zip that leads out", "image_files", '".." in name.split("/")', 'name == ".."', ("test_files.py",)),
    Mutation("one zip open in two processes", "image_files", "_open_zip(path, os.getpid(),", "_open_zip(path, 0,", ("test_files.py",)),
    Mutation("one folder taken for a class", "image_files", "len(tops) < 2", "len(tops) < 1", ("test_files.py",)),
    Mutation("half of the pictures may be broken", "image_files", "(n - 1) // 2)", "n - 1)", ("test_files.py",)),
    Mutation("classes shifted by the broken ones", "image_files", "else known[kept] for", "else known[:len(kept)] for", both("test_files.py")),
    Mutation("what just fits kept on disk", "image_files", "need > IN_MEMORY", "need >= IN_MEMORY", ("test_files.py",)),
    Mutation("CIFAR-10 read pixel by pixel", "datasets", "rows[:, 1:].reshape(-1, 3, 32, 32)", "rows[:, 1:].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)", both("test_files.py")),
    Mutation("the first tenth for testing", "datasets", "len(numbers) - max(1, len(numbers) // 10)", "max(1, len(numbers) // 10)", both("test_files.py")),
    Mutation("the border of CelebA's split", "datasets", "number <= 162_770", "number < 162_770", ("test_files.py",)),
    Mutation("attributes the other way round", "datasets", '{"-1": 0, "1": 1}', '{"-1": 1, "1": 0}', both("test_files.py")),

    Mutation("the time embedded without - 1", "unet", "(t - 1).float()", "t.float()", ("test_diffusers.py",)),
    Mutation("cosines before sines", "unet", "torch.cat([angles.sin(), angles.cos()], dim=1)", "torch.cat([angles.cos(), angles.sin()], dim=1)", ("test_diffusers.py",)),
    Mutation("the null label an existing class", "unet", "none = torch.nan if self.label is None else self.config.num_classes", "none = torch.nan if self.label is None else 0", ("test_guidance.py",)),
    Mutation("the null context all zeros", "unet", "none = torch.nan if self.label is None else self.config.num_classes", "none = 0 if self.label is None else self.config.num_classes", both("test_guidance.py")),
    Mutation("a dropped context told as zeros", "unet", "return torch.where(none, self.null, self.project(y.masked_fill(none, 0)))", "return self.project(y.masked_fill(none, 0))", both("test_guidance.py")),
    Mutation("no context is the last label's vector", "unet", "none = torch.full_like(t, self.config.num_classes)", "none = torch.full_like(t, self.config.num_classes - 1)", both("test_guidance.py")),
    Mutation("a scale without its 1", "unet", "self.norm2(h) * (1 + scale) + shift", "self.norm2(h) * scale + shift", ("test_guidance.py",)),
    Mutation("scale and shift exchanged", "unet", "scale, shift = told.chunk(2, dim=1)", "shift, scale = told.chunk(2, dim=1)", ("test_guidance.py",)),
    Mutation("a compiled network that looks at its labels", "unet", 'seen = y.device.type == "cpu" and not torch.compiler.is_compiling()', 'seen = y.device.type == "cpu"', ("test_unet.py::test_compiled_in_one_piece_and_once",)),
    Mutation("a transposed convolution cut at its beginning", "unet", "[..., : size[0], : size[1]]", "[..., -size[0] :, -size[1] :]", ("test_unet.py::test_a_transposed_convolution_paints_windows",)),
    Mutation("other dropout when computed again", "unet", "use_reentrant=False)", "use_reentrant=False, preserve_rng_state=False)", both("test_unet.py")),
    Mutation("features joined before they are forgotten", "unet", "answer(layer, emb, x, kept.pop())", "answer(layer, emb, torch.cat([x, kept.pop()], dim=1))", ("test_unet.py::test_checkpointing_changes_memory_and_nothing_else",)),
    Mutation("a head's width for the number of heads", "unet", "width // self.head_dim", "self.head_dim", ("test_unet.py::test_heads_of_one_width_at_every_level", "test_interop.py")),
    Mutation("normalised features left in the other order", "unet", "return out.contiguous(memory_format=torch.channels_last)", "return out", ("test_unet.py::test_channels_that_lie_side_by_side_stay_so",)),
    Mutation("a count of heads where their width is given", "diffusers_exchange", 'return {"heads": heads.pop()} if len(heads) == 1 else {"head_dim": head_dim}', 'return {"heads": min(heads)}', ("test_interop.py::test_answers_and_gradients_both_ways",)),
    Mutation("an odd size exported", "diffusers_exchange", "for n in c.sizes[:-1])", "for n in c.sizes[:-2])", both("test_interop.py")),
    Mutation("the larger variance forgotten", "diffusers_exchange", '"variance_type": "fixed_small"} | _walk(run)', '"variance_type": "fixed_small"}', ("test_interop.py::test_the_way_of_walking_survives_there_and_back",)),
    Mutation("keys and queries exchanged", "diffusers_exchange", 'for letter in "qkv")', 'for letter in "kqv")', both("test_interop.py")),
    Mutation("the nearest picture by another quantity than the distance", "evaluate", "ranks = squares - 2 * x @ known.T", "ranks = squares - x @ known.T", ("test_report.py::test_the_nearest_picture_is_found_as_by_all_differences",)),
    Mutation("told nothing forgotten at a new start", "finetune", "+ _null(run.model)", "+ 0 * _null(run.model)", both("test_start.py")),
    Mutation("the first label for none at a new start", "finetune", "model.label.weight[-1]", "model.label.weight[0]", both("test_start.py")),
    Mutation("rows at random at a new start", "finetune", "torch.zeros_like(x) for name, x in model", "x for name, x in model", both("test_start.py")),
    Mutation("a flag ignored beside --from", "command.recipes", "for f in fields(ScheduleConfig):", "for f in ():", ("test_start.py::test_what_contradicts_the_model_is_refused",)),

    Mutation("EMA with its shares exchanged", "train", "_foreach_lerp_(averages, weights, 1 - decay)", "_foreach_lerp_(averages, weights, decay)", ("test_train.py", PAGE)),
    Mutation("EMA warm-up one step late", "train", "min(config.ema_decay, (1 + n) / (10 + n))", "min(config.ema_decay, n / (9 + n))", both("test_train.py")),
    Mutation("learning rate that starts at zero", "train", "min(1.0, (n + 1) / max", "min(1.0, n / max", ("test_train.py",)),
    Mutation("SNR weights cut at 5", "train", '"snr": math.inf', '"snr": 5.0', ("test_train.py",)),
    Mutation("the bound's weights for one time, not for the sum", "train", "return schedule.T * vlb_weight", "return vlb_weight", ("test_train.py",)),
    Mutation("the last window is never cut out", "train", "torch.randint(0, config.crop + 1", "torch.randint(0, max(config.crop, 1)", ("test_train.py",)),
    Mutation("the corner of a window taken twice", "train", "corner[0], corner[1]]", "corner[0], corner[0]]", ("test_train.py",)),
    Mutation("parts of a batch added up, not averaged", "train", "self.loss(step, i, *piece) / parts", "self.loss(step, i, *piece)", both("test_resume.py")),
    Mutation("labels dropped where they should be kept", "train", "dropped < config.label_drop", "dropped >= config.label_drop", ("test_train.py",)),
    Mutation("the losses of other processes forgotten", "train", "        torch.distributed.all_reduce(total)\n            total /= self.here.num_processes", "        total /= self.here.num_processes", ("test_resume.py::test_two_processes_get_the_weights_of_one",)),
    Mutation("another order of images after a stop", "train", "range(start, self.config.steps)", "range(self.config.steps)", ("test_resume.py::test_stopped_and_continued_is_the_same_to_the_last_bit", PAGE)),
    Mutation("one checkpoint more than asked for", "runs", "checkpoints(folder)[:-keep]", "checkpoints(folder)[:-keep - 1]", ("test_runs.py::test_a_training_that_is_killed_goes_on_to_the_same_bits",)),
    Mutation("the oldest checkpoint taken for the newest", "runs", "in reversed(checkpoints(folder))", "in checkpoints(folder)", ("test_runs.py::test_a_training_that_is_killed_goes_on_to_the_same_bits",)),
    Mutation("the log of steps that are undone kept", "runs", "for line in read_log(folder, last))", "for line in read_log(folder))", both("test_runs.py")),

    Mutation("labels that are not gone through again", "generate", "labels[i % len(labels)]", "labels[min(i, len(labels) - 1)]", ("test_drawing.py::test_and_on_its_label",)),
    Mutation("a run halved in its place", "drawing", "_halved(copy.deepcopy(model))", "_halved(model)", both("test_drawing.py")),

    Mutation("an average over one too many", "command.page", "return (sums[width:] - sums[:-width]) / width", "return (sums[width:] - sums[:-width]) / (width + 1)", both("test_summary.py")),
    Mutation("a curve thinned to its valleys", "command.page", "for pick in (np.argmin, np.argmax)", "for pick in (np.argmin, np.argmin)", (PAGE,)),
    Mutation("words from a file as they come", "command.page", "autoescape=True", "autoescape=False", both("test_summary.py")),
    Mutation("a training counted as one call for an image", "command.commands", "training = 3 * config.steps", "training = 3 + config.steps", (PAGE,)),
    Mutation("any file for a picture", "command.page", "(data := path.read_bytes()).startswith(sign)", "(data := path.read_bytes()).startswith(b'')", ("test_summary.py::test_only_pictures_are_pictures",)),
    Mutation("a resumed curve over the old one", "command.progress", "purge_step=step + 1", "purge_step=None", ("test_summary.py::test_tensorboard_holds_what_the_log_holds",)),
    Mutation("ink that is not seen at night", "command.page", "for theirs, ours in _inks().items()", "for theirs, ours in ()", ("test_summary.py::test_the_curves_are_whole_drawings_in_the_colours_of_the_page",)),

    Mutation("attributes learned as one choice", "features", "loss_of = F.binary_cross_entropy_with_logits if", "loss_of = F.cross_entropy if", ("test_features.py::test_attributes_are_questions_with_yes_or_no",)),
    Mutation("first weights that leave torch's random numbers changed", "features", "with torch.random.fork_rng(devices=[]):\n        torch.default_generator.manual_seed(seed)", "if True:\n        torch.default_generator.manual_seed(seed)", ("test_features.py::test_a_fit_is_a_function_of_its_seed",)),
    Mutation("one order and the same moves for all seeds", "features", "keyed_generator(seed, 4)", "keyed_generator(0, 4)", ("test_features.py::test_a_fit_is_a_function_of_its_seed",)),
    Mutation("pictures that are never moved all the way", "features", "torch.randint(0, 2 * shift + 1,", "torch.randint(0, 2 * shift,", ("test_features.py::test_pictures_are_only_moved",)),
    Mutation("a border that is mirrored, not repeated", "features", 'mode="replicate"', 'mode="reflect"', ("test_features.py::test_pictures_are_only_moved",)),
    Mutation("pictures of 17 levels taken for ones of 256", "features", "to_float(part.to(device), levels)", "to_float(part.to(device))", ("test_features.py::test_features_do_not_depend_on_the_batch",)),
    Mutation("a logit taken for a probability", "features", "(said > 0) ==", "(said > 0.5) ==", ("test_features.py::test_accuracy_counted_by_hand",)),
    Mutation("kernel distance of subsets of 50", "features", "min(1000, len(a), len(b))", "min(50, len(a), len(b))", both("test_features.py::test_distances_are_their_formulas")),
    Mutation("kernel distance in single precision", "features", "metric.update(a, real=False)", "metric.update(a.float().double(), real=False)", ("test_features.py::test_distances_are_their_formulas",)),
    Mutation("the same subsets for all seeds", "features", "with _seeded(seed):\n        mean, scatter", "with _seeded(0):\n        mean, scatter", ("test_features.py::test_distances_are_a_function_of_their_seed",)),
    Mutation("a score learned from the test", "features", "fit_classifier(samples, device=device, **options), test, device", "fit_classifier(test, device=device, **options), samples, device", both("test_features.py::test_the_score_is_what_samples_teach")),
    Mutation("a measured network left on another device", "features", "copy.deepcopy(model).to(device)", "model.to(device)", ("test_features.py::test_the_network_of_the_caller_stays_where_it_is",)),
    Mutation("images gathered on the CPU", "features", "pixels, known = data.images.to(device), known.to(device)", "pixels, known = data.images, known", ("test_features.py::test_training_runs_on_the_device",)),
    Mutation("a classifier without features accepted", "features", "1 <= value <= 4096", "0 <= value <= 4096", ("test_features.py::test_hostile_settings_are_refused_in_a_sentence",)),

    Mutation("noise by the place in the batch", "likelihood", "int(i)) for i in some]", "i) for i in range(len(some))]", ("test_likelihood.py",)),
    Mutation("labels of the first images for all batches", "likelihood", "else y[some]", "else y[:len(some)]", ("test_likelihood.py",)),
    Mutation("bits of a mean step, not of all", "likelihood", "steps = kl.sum(1)", "steps = kl.mean(1)", both("test_likelihood.py")),
    Mutation("the spread of images for the error of their mean", "likelihood", "(len(x) * (len(x) - 1))).sqrt()", "(len(x) - 1)).sqrt()", ("test_likelihood.py",)),
    Mutation("a total without L_T", "likelihood", "return self.prior + self.kl + self.reconstruction", "return self.kl + self.reconstruction", ("test_likelihood.py",)),
    Mutation("a threshold taken for a range", "likelihood", "denoiser.clip if isinstance(denoiser.clip, tuple) else None", "denoiser.clip", ("test_likelihood.py",)),

    Mutation("a judge trained on the CPU whatever the device", "report", "fit_classifier(train, epochs, device=device)", "fit_classifier(train, epochs)", ("test_report.py::test_all_of_it_runs_on_the_device",)),
    Mutation("each class asked for equally often", "report", "rows = torch.randint(len(train), (n,), generator=keyed_generator(seed, 6))", "rows = torch.tensor([(train.labels == train.labels.unique()[i % len(train.labels.unique())]).nonzero()[0, 0] for i in range(n)]) if train.labels is not None else torch.randint(len(train), (n,), generator=keyed_generator(seed, 6))", ("test_report.py::test_labels_are_as_frequent_as_in_the_data",)),
    Mutation("samples on one level too many", "report", "/ 255 * (levels - 1)).round()", "/ 255 * levels).round()", ("test_report.py::test_samples_have_the_levels_of_the_data_and_the_labels_that_were_asked_for",)),
    Mutation("one floor, five times", "report", "keyed_generator(seed, 7, i)", "keyed_generator(seed, 7)", ("test_report.py::test_the_floor_is_drawn_anew",)),
    Mutation("copies looked for among held-out pictures", "report", "known = _floats(train, device)", "known = _floats(test, device)", ("test_report.py::test_copies_are_found",)),
]
QUICK = ["KL with the means added", "cosine without the square", "stride over the wrong alpha_bar", "beta for the posterior variance", "v with its sign flipped",
         "terms averaged, not added", "the last step adds noise", "sigma for the direction", "slerp that is linear", "EMA with its shares exchanged"]  # judged by their test files in the quick suite


# The copy that is judged


@functools.cache
def workspace() -> Path:
    "A copy of what the judges need, one for each process of the court."
    folder = Path(tempfile.mkdtemp(prefix="court"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "_proc", ".ipynb_checkpoints")
    for name in ("ddpm_lit", "nbs", "tests", "results"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skip)
    for name in ("pytest.ini", "settings.ini", "_quarto.yml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@functools.cache
def page_of(module: str, folder: Path = ROOT) -> Path:
    for path in sorted((folder / "nbs").rglob("[0-9]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf'"#\|\s*default_exp {module}(\\n)?"', text):
            return path
    raise SystemExit(f"no notebook exports {module}")


CLOSING = (")", "]", "}")


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Words and signs with their places; spaces, line breaks and a comma before a
    closing bracket do not count, so that the layout of the code is free."""
    found = [(m[0], m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)]
    pairs = zip(found, [*found[1:], ("", 0, 0)])
    return [
        token for token, (after, *_) in pairs if token[0] != "," or after not in CLOSING
    ]


def replaced(text: str, mutation: Mutation, where: str) -> str:
    """The text with `old`, which stands in it once in whatever layout, replaced by
    `new`."""
    whole, words = tokens(text), [word for word, *_ in tokens(mutation.old)]
    spelled, first = [word for word, *_ in whole], words[0]
    starts = [i for i, word in enumerate(spelled) if word == first]
    places = [i for i in starts if spelled[i : i + len(words)] == words]
    if len(places) != 1:
        found = f"{mutation.old!r} occurs {len(places)} times"
        raise SystemExit(f"'{mutation.name}': {found} in {where}, not once")
    start, end = whole[places[0]][1], whole[places[0] + len(words) - 1][2]
    return text[:start] + mutation.new + text[end:]


def cells_of(path: Path) -> list[str]:
    "The sources of a notebook's cells; empty where a cell is not code."
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source if cell.cell_type == "code" else "" for cell in cells]


def mistaken_cell(path: Path, mutation: Mutation) -> tuple[int, str]:
    "The exported cell in which the mistake is made: its place and its new source."
    mark, cells = "\n# next cell\n", cells_of(path)
    exported = [i for i, c in enumerate(cells) if re.match(r"#\|\s*exports?\b", c)]
    whole = mark.join(cells[i] for i in exported) + "\n"
    changed = replaced(whole, mutation, path.name)[:-1].split(mark)
    (found,) = ((i, c) for i, c in zip(exported, changed) if c != cells[i])
    return found


@contextmanager
def mistake(folder: Path, mutation: Mutation):
    "The mistake, in the module and in the notebook that exports it, for a while."
    module = (folder / "ddpm_lit").joinpath(*mutation.module.split("."))
    module, page = module.with_suffix(".py"), page_of(mutation.module, folder)
    before = {path: path.read_bytes() for path in (module, page)}
    text = replaced(before[module].decode(), mutation, module.name)
    i, source = mistaken_cell(page, mutation)
    notebook = nbformat.read(page, as_version=4)
    notebook.cells[i].source = source
    try:
        module.write_text(text, encoding="utf-8")
        nbformat.write(notebook, page)
        yield
    finally:
        for path, data in before.items():
            path.write_bytes(data)


# The judges


def court(processes: int) -> ProcessPoolExecutor:
    "Processes that call `tried` and `noticed`, each asking one judge at a time."
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), prepare)


def prepare() -> None:
    """In a process of the court: import what takes long, once for all judges. A fork
    has no threads but its first, so there may be no others."""
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ.update(
        PYTHONDONTWRITEBYTECODE="1",
        NO_SHRINK="1",
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
    )
    os.environ.pop("MPLBACKEND", None)
    sys.dont_write_bytecode = True
    for name in HEAVY:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()  # what all judges share is not looked through again by each
    assert threading.active_count() == 1 and "ddpm_lit" not in sys.modules


def run_cell(source: str, name: str, names: dict) -> int:
    "0: it ran; 1: an assertion or a refused value; 3: any other exception."
    try:
        exec(compile(source, name, "exec"), names)
    except (AssertionError, ValueError) as error:
        print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        return 1
    except BaseException:
        print(name, traceback.format_exc())
        return 3
    return 0


def run_cells(cells: list[str], first: int, names: dict) -> int:
    "Run cells until one fails: 0, or that cell's verdict."
    for i, source in enumerate(cells, first):
        if code := run_cell(source, f"cell {i}", names):
            return code
    return 0


def kept(folder: Path) -> dict[Path, bytes | None]:
    "All that lies in a folder, what contains before what is contained."
    found = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in found}


def put_back(folder: Path, before: dict[Path, bytes | None]) -> None:
    "Make a folder again what it was when it was `kept`."
    now = kept(folder)
    for path in reversed([path for path in now if path not in before]):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    for path, data in before.items():
        if data is None:
            path.mkdir(exist_ok=True)
        elif now.get(path) != data:
            path.write_bytes(data)


def try_from_here(mutation: Mutation, cells: list[str], first: int, names: dict):
    """In a fork, go on with the mutated cell: exit code and report. What lies in
    files is put back; all else that the fork does, it does to itself."""
    scratch = Path(tempfile.gettempdir())
    report = scratch.parent / "report of a fork"
    assert threading.active_count() == 1, "a fork would leave threads behind"
    before = kept(scratch)
    sys.stdout.flush()
    with mistake(workspace(), mutation), open(report, "wb") as file:
        if not (pid := os.fork()):
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            code = run_cells(cells, first, names)
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    put_back(scratch, before)
    return code, report.read_text(encoding="utf-8", errors="replace")[-1500:]


def run_page(path: Path, mutations: tuple[Mutation, ...]) -> tuple[int, dict]:
    """Run a notebook's cells in one namespace, without a kernel. Before a cell with
    mistakes, each of them is tried in a fork: the cells above are the same for all,
    since no page imports the module that it exports. The page's own verdict, and
    theirs."""
    import matplotlib

    matplotlib.use("agg")
    from IPython.display import display

    names = {"__name__": "__main__", "display": display, "get_ipython": lambda: None}
    cells, verdicts = cells_of(path), {}
    mistakes = [(m, *mistaken_cell(path, m)) for m in mutations]
    for i, source in enumerate(cells):
        for m, at, changed in mistakes:
            if at == i:
                rest = [changed, *cells[i + 1 :]]
                verdicts[m.name] = try_from_here(m, rest, i, names)
        if code := run_cell(source, f"cell {i}", names):
            return code, verdicts
    return 0, verdicts


def run_tests(name: str) -> int:
    """Run a file of tests, or one of its tests. pytest's exit code is 1 if one of them
    failed, and more if they could not be run."""
    import pytest

    quiet = "-x -q --tb=line --disable-warnings -p no:cacheprovider".split()
    return int(pytest.main([*quiet, f"tests/{name}"]))


def sit(
    scratch: Path, judge: str, module: str, mutations: tuple[Mutation, ...]
) -> None:
    """In a judge's own process: judge the package that lies in the workspace. The
    verdict on it is the exit code; those on the mutations of a page are written
    down."""
    code, folder = 3, workspace()
    try:
        with open(scratch / "report", "wb") as report:
            for stream in (1, 2):
                os.dup2(report.fileno(), stream)
        files = scratch / "files"
        files.mkdir()
        tempfile.tempdir = str(files)
        os.environ.update(PYTHONPATH=str(folder), TMPDIR=str(files))
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a fork cannot share a GPU
        sys.path.insert(0, str(folder))
        origin = find_spec("ddpm_lit").origin
        assert origin == str(folder / "ddpm_lit" / "__init__.py"), "another package"
        page = page_of(module, folder) if judge == PAGE else None
        os.chdir(page.parent if page else folder)
        if page:
            code, verdicts = run_page(page, mutations)
            (scratch / "verdicts").write_text(json.dumps(verdicts), encoding="utf-8")
        else:
            code = run_tests(judge)
    except BaseException:
        traceback.print_exc()
    sys.exit(code)


def verdict(judge: str, module: str, mutations: tuple[Mutation, ...] = ()):
    """What a judge says of the workspace, and of the mutations of his page. 0: all
    is well; 1: he found a mistake; anything else: he could not judge. With it, his
    words."""
    workspace()  # made here, so that the fork does not make one of its own
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        context = multiprocessing.get_context("fork")
        process = context.Process(target=sit, args=(scratch, judge, module, mutations))
        process.start()
        process.join()
        words = (scratch / "report").read_text(encoding="utf-8", errors="replace")
        tried = scratch / "verdicts"
        found = json.loads(tried.read_text("utf-8")) if tried.is_file() else {}
    return (process.exitcode, words[-1500:]), found


def fair(judge: str, module: str, said: tuple[int, str]) -> None:
    "A judge who condemns the unchanged package is no judge."
    code, words = said
    if code:
        raise SystemExit(f"{judge} of {module} fails without any mutation:\n{words}")


@functools.cache
def innocent(test: str) -> None:
    """The unchanged package passes the test. Known already where the quick suite has
    just passed on this tree, as in .ci/run."""
    if "QUICK_SUITE_PASSED" not in os.environ:
        fair(test, "", verdict(test, "")[0])


def condemned(mutation: Mutation, judge: str, said: tuple[int, str]) -> bool:
    "Whether the judge noticed, and for the right reason."
    code, words = said
    if code not in (0, 1):
        what = f"'{mutation.name}' made {judge} crash instead of fail"
        raise SystemExit(f"{what}:\n{words}")
    return code == 1


def seen_by_page(mutations: tuple[Mutation, ...]) -> dict[str, bool]:
    "Which of the mutations of one module its page notices, in one run of the page."
    module = mutations[0].module
    said, found = verdict(PAGE, module, mutations)
    fair(PAGE, module, said)
    return {m.name: condemned(m, PAGE, found[m.name]) for m in mutations}


def seen_by_test(mutation: Mutation, test: str, known: bool = False) -> bool:
    """Whether the tests of a file, or one of them, notice the mutation. `known`:
    that they pass without it."""
    if not known:
        innocent(test)
    with mistake(workspace(), mutation):
        said, _ = verdict(test, mutation.module)
    return condemned(mutation, test, said)


def total() -> str:
    return f"{len(MUTATIONS)} mutations"


def by_module(mutations) -> dict[str, tuple[Mutation, ...]]:
    found: dict[str, tuple[Mutation, ...]] = {}
    for m in mutations:
        found[m.module] = (*found.get(m.module, ()), m)
    return found


def main(parts: list[str]) -> int:
    """Ask all judges of the chosen mutations; the number of those that one of them
    missed."""

    def chosen(m: Mutation) -> bool:
        return not parts or any(part in m.name or part == m.module for part in parts)

    clerk, missed = court(1), 0
    for module, mutations in by_module(filter(chosen, MUTATIONS)).items():
        of_page = tuple(m for m in mutations if PAGE in m.judges)
        seen = clerk.submit(seen_by_page, of_page).result() if of_page else {}
        for m in mutations:
            tests = [judge for judge in m.judges if judge != PAGE]
            asked = [clerk.submit(seen_by_test, m, test).result() for test in tests]
            found = all([seen.get(m.name, True), *asked])
            missed += not found
            word, judges = "caught" if found else "MISSED", " and ".join(m.judges)
            print(f"{word}  {module:10} {m.name} ({judges})", flush=True)
    return missed


if __name__ == "__main__":
    missed = main(sys.argv[1:])
    print(f"{missed} missed")
    sys.exit(bool(missed))

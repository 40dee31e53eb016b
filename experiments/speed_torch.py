"""The same network and task as `experiments.speed_denoiser` by torch's nn.GRU, float32.

In eager mode with all threads, as torch is used; the extra `bench` installs torch.
"""

import dataclasses
import math
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from experiments.speed_work import TIME_WAVES, TIME_WIDTH, Network, Ready

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
RATE, DECAY = 1e-3, 0.997
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Denoiser(torch.nn.Module):
    """x [B, T, C] at diffusion times t [B] -> x0_hat [B, T, C]."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        width, layers = 2 * net.hidden, torch.nn
        self.gru = layers.GRU(
            net.channels, net.hidden, net.layers, batch_first=True, bidirectional=True
        )
        self.norm = layers.LayerNorm(width)
        self.time = layers.Sequential(
            layers.Linear(TIME_WAVES, TIME_WIDTH),
            layers.GELU(),
            layers.Linear(TIME_WIDTH, TIME_WIDTH),
        )
        self.film = layers.Sequential(
            layers.SiLU(), layers.Linear(TIME_WIDTH, 2 * width)
        )
        self.head = layers.Linear(width, net.channels)

    def forward(self, x: Any, t: Any, length: Any = None) -> Any:
        half = TIME_WAVES // 2
        steps = torch.arange(half, device=t.device) / (half - 1)
        angle = 1000.0 * t[:, None] * torch.exp(-math.log(10_000.0) * steps)
        time = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        scale, shift = self.film(time)[:, None].chunk(2, -1)
        h = self.norm(self.states(x, length))
        return self.head(h * (1.0 + scale) + shift)

    def states(self, x: Any, length: Any) -> Any:
        """Of the GRU; records of several lengths as torch packs them."""
        if length is None:
            return self.gru(x)[0]
        tools, options = torch.nn.utils.rnn, {"batch_first": True}
        packed = tools.pack_padded_sequence(x, length, enforce_sorted=False, **options)
        states = self.gru(packed)[0]
        return tools.pad_packed_sequence(states, total_length=x.shape[1], **options)[0]


def sigma_of(t: Any) -> Any:
    return SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** t


def denoise(model: Denoiser, x: Any, t: Any, length: Any = None) -> Any:
    scale = (1.0 + sigma_of(t) ** 2).rsqrt()
    return model(x * scale[:, None, None], t, length)


def prepared(sizes: dict[str, Any]) -> tuple[Network, Denoiser, Any]:
    """Sizes, module, standard normal rows."""
    names = {field.name for field in dataclasses.fields(Network)}
    net = Network(**{name: sizes[name] for name in names & set(sizes)})
    torch.manual_seed(0)
    data = torch.randn(net.rows, net.steps, net.channels, device=DEVICE)
    return net, Denoiser(net).to(DEVICE), data


def finished(value: Any) -> Any:
    """The value, once the device has it."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return value


def train(sizes: dict[str, Any]) -> Ready:
    """Optimiser steps on the whole batch."""
    net, model, data = prepared(sizes)
    params = list(model.parameters())
    ema = [param.detach().clone() for param in params]
    adam = torch.optim.Adam(params, RATE)
    valid, length = torch.ones(1, 1, 1, device=DEVICE), None
    if net.ragged:  # lengths are asked for on the host
        length = torch.randperm(net.rows) % net.steps + 1
        valid = (torch.arange(net.steps) < length[:, None])[..., None].to(DEVICE)

    def step() -> Any:
        t = torch.rand(net.rows, device=DEVICE)
        x = data + sigma_of(t)[:, None, None] * torch.randn_like(data)
        error = (denoise(model, x, t, length) - data) ** 2 * valid
        loss = torch.mean(error) / net.share
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, params, 1.0 - DECAY)
        return loss.detach()

    def run() -> float:
        loss = torch.nan
        for _ in range(net.repeats):
            loss = step()
        return finished(float(loss))

    return Ready(run, net.flop(True), net.bytes(True), lambda loss: {"loss": loss})


def sample(sizes: dict[str, Any]) -> Ready:
    """`net.repeats` Euler steps of all rows at once."""
    net, model, noise = prepared(sizes)
    t = torch.linspace(1.0, 0.0, net.repeats + 1, device=DEVICE)
    sigmas = torch.cat([sigma_of(t[:-1]), torch.zeros(1, device=DEVICE)])

    @torch.inference_mode()
    def run() -> Any:
        x = sigmas[0] * noise
        for level, now, after in zip(t[:-1], sigmas[:-1], sigmas[1:]):
            x0_hat = denoise(model, x, level.expand(net.rows))
            x = x0_hat + (after / now) * (x - x0_hat)
        return finished(x)

    told = lambda rows: {"finite": bool(torch.isfinite(rows).all())}
    return Ready(run, net.flop(), net.bytes(), told)

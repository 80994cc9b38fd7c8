# SPDX-License-Identifier: BSD-3-Clause
"""AdaRound, slow and obvious: by autograd over all rows, and by trying every choice. Never imports the library."""

import itertools
import math

import torch
from torch import Tensor

ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "relu6": torch.nn.functional.relu6}


def beta_at(step: int, iterations: int) -> float:
    """β of a step from 1 on, or 0 in the first fifth."""
    share = step / iterations
    return 0.0 if share <= 0.2 else 2 + 18 * (1 + math.cos(math.pi * (share - 0.2) / 0.8)) / 2


def learned_codes(
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: Tensor,
    targets: Tensor,
    limit: int,
    iterations: int,
    regularization: float,
    activation: str,
) -> Tensor:
    """The codes that Adam finds for weight (O, K) with all rows (N, K) in each step, in float64."""
    weight, scale, bias, rows, targets = (x.double() for x in (weight, scale, bias, rows, targets))
    step, act = scale[:, None], ACTIVATIONS[activation]
    floor = torch.floor(weight / step)
    v = -torch.log(1.2 / (weight / step - floor + 0.1) - 1)
    v.requires_grad_()
    adam = torch.optim.Adam([v], lr=0.01)
    for t in range(1, iterations + 1):
        h = (1.2 * torch.sigmoid(v) - 0.1).clamp(0, 1)
        rounded = (floor + h).clamp(-limit, limit) * step
        loss = (act(rows @ rounded.T + bias) - act(targets)).square().sum(1).mean()
        beta = beta_at(t, iterations)
        if beta > 0:
            loss = loss + regularization * (1 - (2 * h - 1).abs() ** beta).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return (floor + (v.detach() >= 0)).clamp(-limit, limit)


def output_error(codes: Tensor, scale: Tensor, bias: Tensor, rows: Tensor, targets: Tensor, activation: str) -> Tensor:
    """The mean squared error of each channel."""
    act = ACTIVATIONS[activation]
    outputs = rows.double() @ (codes.double() * scale.double()[:, None]).T + bias.double()
    return (act(outputs) - act(targets.double())).square().mean(0)


def best_error(
    weight: Tensor, scale: Tensor, bias: Tensor, rows: Tensor, targets: Tensor, limit: int, activation: str
) -> Tensor:
    """The smallest error of each channel over all choices of up and down."""
    floor = torch.floor(weight.double() / scale.double()[:, None])
    choices = itertools.product((0.0, 1.0), repeat=weight.shape[1])
    errors = [
        output_error(
            (floor + torch.tensor(up, dtype=torch.float64)).clamp(-limit, limit), scale, bias, rows, targets, activation
        )
        for up in choices
    ]
    return torch.stack(errors).amin(0)

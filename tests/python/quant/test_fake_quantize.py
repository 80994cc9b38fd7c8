# SPDX-License-Identifier: BSD-3-Clause
import pytest
import torch

import torchslim as ts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_equals_aten_forward_and_backward(dtype: torch.dtype) -> None:
    x = (torch.randn(3, 16, 7, 5) * 3).to(dtype).requires_grad_()
    grad = torch.randn_like(x)
    ours = ts.quant.fake_quantize(x, 0.0371, 3, -128, 127)
    aten = torch.fake_quantize_per_tensor_affine(x, 0.0371, 3, -128, 127)
    assert torch.equal(ours, aten)
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (ours, aten)))

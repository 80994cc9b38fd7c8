# SPDX-License-Identifier: BSD-3-Clause
import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import kd_loss as reference
from torch import Tensor

import torchslim as ts
from torchslim import _C

REDUCTIONS = ["none", "sum", "mean", "batchmean"]
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
#: Around the vector width (8), the four vectors summed at once (32) and the block (1024).
CLASSES = [1, 2, 7, 8, 9, 31, 32, 100, 1023, 1024, 1025, 2100]


def logits(
    *shape: int, dtype: torch.dtype = torch.float32, spread: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) * spread for _ in range(2))
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def loss_and_gradient(loss: Callable[[Tensor], Tensor], student: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(student)
    return value.detach(), torch.autograd.grad(value.sum(), student)[0]


def expected(student: Tensor, teacher: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
    losses, gradient = reference.kd_loss(student.double().tolist(), teacher.double().tolist(), *args, **kwargs)
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(gradient, dtype=torch.float64)


@pytest.fixture(params=["portable", "avx2"])
def capability(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "avx2" and _C.cpu_capability() != "avx2":
        pytest.skip("this CPU has no AVX2")
    _C.force_cpu_capability(request.param)
    yield request.param
    _C.force_cpu_capability(None)


# ---- values and gradients ----


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", TYPES)
def test_equals_the_reference(classes: int, dtype: torch.dtype, capability: str) -> None:
    student, teacher = logits(5, classes, dtype=dtype)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher, 2.0), student)
    want_loss, want_gradient = expected(student, teacher, 2.0)
    double = dtype == torch.float64
    assert loss.dtype == (torch.float64 if double else torch.float32)
    assert gradient.dtype == dtype
    torch.testing.assert_close(
        loss.double(), want_loss[0], rtol=1e-12 if double else 2e-6, atol=1e-12 if double else 1e-6
    )
    digits = {torch.float64: 1e-13, torch.float32: 5e-7, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    torch.testing.assert_close(gradient.double(), want_gradient, rtol=digits, atol=digits * 0.4)


@given(
    rows=st.integers(0, 6),
    classes=st.integers(1, 40),
    temperature=st.floats(0.3, 20.0),
    weight=st.floats(-2.0, 2.0),
    ce_weight=st.floats(0.0, 2.0),
    label_smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    reduction=st.sampled_from(["none", "sum", "batchmean"]),
    with_mask=st.booleans(),
    with_target=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_combination_equals_the_reference(
    rows: int,
    classes: int,
    temperature: float,
    weight: float,
    ce_weight: float,
    label_smoothing: float,
    reduction: str,
    with_mask: bool,
    with_target: bool,
    seed: int,
) -> None:
    student, teacher = logits(rows, classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, generator=generator) < 0.7 if with_mask else None
    target = torch.randint(-1, classes, (rows,), generator=generator) if with_target else None
    hard = (target, ce_weight, -1, label_smoothing) if with_target else (None, 0.0, -1, label_smoothing)
    loss, gradient = loss_and_gradient(
        lambda s: torch.ops.torchslim.kd_loss(s, teacher, temperature, reduction, mask, weight, *hard), student
    )
    want_loss, want_gradient = expected(
        student,
        teacher,
        temperature,
        reduction,
        None if mask is None else mask.tolist(),
        weight,
        None if target is None else target.tolist(),
        *hard[1:],
    )
    torch.testing.assert_close(loss.double().reshape(-1), want_loss, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(gradient.double(), want_gradient.reshape(rows, classes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(reduction: str) -> None:
    student, teacher = logits(4, 6, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(lambda s: ts.distill.kd_loss(s, teacher, 3.0, reduction, mask, 0.7), student)


@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean"])
def test_gradcheck_with_labels(reduction: str) -> None:
    student, teacher = logits(4, 6, dtype=torch.float64)
    loss = ts.distill.KDLoss(3.0, 0.4, 0.6, label_smoothing=0.1, reduction=reduction)
    target = torch.tensor([5, -100, 0, 2])
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, target), student)


def test_equals_torch_for_sequences() -> None:
    student, teacher = logits(2, 5, 50)
    ours, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher), student)
    flat = student.reshape(10, 50)
    torchs = (
        F.kl_div(F.log_softmax(flat / 4, -1), F.softmax(teacher.reshape(10, 50) / 4, -1), reduction="batchmean") * 16
    )
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(gradient, torch.autograd.grad(torchs, student)[0])
    assert ts.distill.kd_loss(student, teacher, reduction="none").shape == (2, 5)


def test_labels_equal_torch() -> None:
    student, teacher = logits(6, 10)
    target = torch.tensor([1, -100, 9, 0, 4, -100])
    loss = ts.distill.KDLoss(2.0, ce_weight=0.3, kd_weight=0.7, label_smoothing=0.1)
    kept = target != -100
    torchs = 0.3 * F.cross_entropy(student, target, label_smoothing=0.1) + 0.7 * ts.distill.kd_loss(
        student[kept], teacher[kept], 2.0
    )
    torch.testing.assert_close(loss(student, teacher, target), torchs)


# ---- limits ----


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [3, 1000, 3000])
def test_equal_logits_give_exactly_zero(dtype: torch.dtype, classes: int) -> None:
    student, _ = logits(4, classes, dtype=dtype, spread=10.0)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, s.detach().clone()), student)
    assert loss == 0
    assert torch.all(gradient == 0)


def test_high_temperature_is_the_squared_distance_of_centred_logits() -> None:
    student, teacher = logits(3, 10, dtype=torch.float64)
    distance = (student - teacher).detach()
    distance = distance - distance.mean(-1, keepdim=True)
    torch.testing.assert_close(
        ts.distill.kd_loss(student, teacher, 1e5), distance.square().sum() / (2 * 10 * 3), rtol=1e-4, atol=0
    )


def test_small_divergences_are_not_lost_in_rounding() -> None:
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(32, 1000, generator=generator) * 4
    student = teacher + torch.randn(32, 1000, generator=generator) * 3e-3
    ours = ts.distill.kd_loss(student, teacher, 1.0, "none").double()
    exact = ts.distill.kd_loss(student.double(), teacher.double(), 1.0, "none")
    assert torch.all(ours >= 0)
    assert torch.all((ours - exact).abs() < 1e-7), (ours - exact).abs().max()


def test_a_shift_of_all_logits_changes_nothing() -> None:
    student, teacher = logits(4, 50)
    shifted = ts.distill.kd_loss(student.double() + 1e4, teacher.double() - 1e4)
    torch.testing.assert_close(shifted, ts.distill.kd_loss(student.double(), teacher.double()), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [1, 40, 3000])
def test_padding_with_minus_infinity_changes_nothing(dtype: torch.dtype, padding: int) -> None:
    student, teacher = logits(3, 50, dtype=dtype)
    wide = [torch.cat([torch.full((3, padding), -math.inf, dtype=dtype), x.detach()], -1) for x in (student, teacher)]
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, wide[1]), wide[0].requires_grad_())
    want_loss, want_gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher), student)
    torch.testing.assert_close(loss, want_loss)
    assert torch.all(gradient[:, :padding] == 0)
    torch.testing.assert_close(gradient[:, padding:], want_gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_student_excludes_and_the_teacher_does_not_is_infinite(dtype: torch.dtype) -> None:
    student = torch.tensor([[0.0, -math.inf]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0]], dtype=dtype)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher, 2.0), student)
    assert loss == math.inf
    assert gradient.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_do_not_overflow(dtype: torch.dtype) -> None:
    student = torch.tensor([[3e4, -3e4, 0.0], [-1e38, 1e38, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-3e4, 3e4, 0.0], [-1e38, 1e38, 0.0]], dtype=dtype)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher, 1.0, "none"), student)
    assert loss.tolist() == [6e4, 0.0]
    assert gradient.tolist() == [[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["student", "teacher"])
@pytest.mark.parametrize("classes", [5, 2000])
def test_nan_stays_in_its_row(dtype: torch.dtype, value: float, where: str, classes: int) -> None:
    student, teacher = logits(3, classes, dtype=dtype)
    (student.data if where == "student" else teacher)[1, 3] = value
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher, reduction="none"), student)
    assert loss.isnan().tolist() == [False, True, False]
    # The gradient q − p is NaN wherever the NaN reaches; the other rows are untouched.
    assert torch.all(gradient[1].isnan())
    assert not gradient[[0, 2]].isnan().any()
    assert ts.distill.kd_loss(student, teacher).isnan()
    assert not ts.distill.kd_loss(student, teacher, mask=torch.tensor([True, False, True])).isnan()


def test_any_nan_bits_stay_nan() -> None:
    student, teacher = logits(1, 8)
    for bits in (0x7F800001, 0x7FFFFFFF, -1, 0x7FC00007):
        student.data[0, 2] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
        assert ts.distill.kd_loss(student, teacher).isnan()


# ---- rows that do not count ----


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_kept_is_zero_and_still_backpropagates(reduction: str) -> None:
    student, teacher = logits(3, 5)
    student.data[0, 0] = math.nan
    nothing = torch.zeros(3, dtype=torch.bool)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher, 4.0, reduction, nothing), student)
    assert torch.all(loss == 0)
    assert torch.all(gradient == 0)


def test_all_labels_ignored_is_zero_and_still_backpropagates() -> None:
    student, teacher = logits(3, 5)
    loss, gradient = loss_and_gradient(
        lambda s: ts.distill.KDLoss(ignore_index=7)(s, teacher, torch.tensor([7, 7, 7])), student
    )
    assert loss == 0
    assert torch.all(gradient == 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_empty_batch_is_zero_and_still_backpropagates(reduction: str) -> None:
    student, teacher = logits(0, 5)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher, reduction=reduction), student)
    assert loss.sum() == 0
    assert gradient.shape == (0, 5)


def test_one_class_is_zero() -> None:
    student, teacher = logits(3, 1)
    loss, gradient = loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher), student)
    assert loss == 0
    assert torch.all(gradient == 0)


def test_a_mask_of_sequences_counts_tokens() -> None:
    student, teacher = logits(2, 3, 8)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(
        ts.distill.kd_loss(student, teacher, mask=mask), ts.distill.kd_loss(student[mask], teacher[mask])
    )


# ---- layouts, threads, instruction sets ----


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, 1:, :],  # shifted tokens
        lambda x: x[..., 3:-2],  # part of a vocabulary
        lambda x: x[::2],
        lambda x: x.transpose(0, 1),
        lambda x: x.transpose(1, 2),  # gaps within a row: the only one that is copied
        lambda x: x.permute(0, 2, 1).contiguous().permute(0, 2, 1),  # channels last
        lambda x: x[:1].expand(4, -1, -1),
    ],
)
def test_views_give_the_bits_of_their_copies(view: Callable[[Tensor], Tensor]) -> None:
    student, teacher = logits(4, 6, 70)
    of_views = ts.distill.kd_loss(view(student), view(teacher))
    of_copies = ts.distill.kd_loss(view(student).contiguous(), view(teacher).contiguous())
    assert torch.equal(of_views, of_copies)
    assert torch.equal(*(torch.autograd.grad(x, student)[0] for x in (of_views, of_copies)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(64, 100), (2000, 9), (7, 5000)])
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    student, teacher = logits(*shape, dtype=dtype)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(loss_and_gradient(lambda s: ts.distill.kd_loss(s, teacher), student))
    torch.set_num_threads(threads)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.skipif(_C.cpu_capability() != "avx2", reason="this CPU has no AVX2, or another kernel is forced")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_portable_and_avx2_kernels_give_the_same_bits(dtype: torch.dtype, classes: int) -> None:
    student, teacher = logits(9, classes, dtype=dtype, spread=20.0)
    student.data[0, 0], teacher[0, -1], student.data[1, -1] = -math.inf, -math.inf, -math.inf
    target = torch.arange(9) % classes
    results = []
    for name in ("portable", "avx2"):
        _C.force_cpu_capability(name)
        loss = ts.distill.KDLoss(0.5, label_smoothing=0.1, reduction="none")
        results.append(loss_and_gradient(lambda s, loss=loss: loss(s, teacher, target), student))
    _C.force_cpu_capability(None)
    for portable, avx2 in zip(*results, strict=True):
        assert (
            portable.numpy(force=True).tobytes() == avx2.numpy(force=True).tobytes()
            if (dtype != torch.bfloat16)
            else torch.equal(portable.view(torch.int16), avx2.view(torch.int16))
        )


# ---- autograd ----


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = logits(3, 5)
    teacher.requires_grad_()
    ts.distill.kd_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert not ts.distill.kd_loss(student.detach(), teacher).requires_grad


def test_double_backward_is_refused_by_name() -> None:
    student, teacher = logits(3, 5)
    (gradient,) = torch.autograd.grad(ts.distill.kd_loss(student, teacher), student, create_graph=True)
    with pytest.raises(RuntimeError, match="torchslim::kd_loss: the gradient cannot be differentiated again"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match="torchslim::kd_loss"):
        torch.autograd.grad(gradient.sum(), student)


def test_backward_twice_gives_the_same_gradient() -> None:
    student, teacher = logits(3, 5)
    loss = ts.distill.kd_loss(student, teacher) * 3
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    first_bits = first.clone()
    first.mul_(100)  # it is the caller's
    (second,) = torch.autograd.grad(loss, student)
    assert torch.equal(first_bits, second)


@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0])
def test_gradients_accumulate_and_scale(scale: float) -> None:
    student, teacher = logits(3, 5)
    (gradient,) = torch.autograd.grad(ts.distill.kd_loss(student, teacher), student)
    for _ in range(2):
        (ts.distill.kd_loss(student, teacher) * scale).backward()
    torch.testing.assert_close(student.grad, 2 * scale * gradient)


@pytest.mark.parametrize("dtype", TYPES)
def test_each_row_takes_its_own_weight(dtype: torch.dtype) -> None:
    student, teacher = logits(3, 5, dtype=dtype)
    weights = torch.tensor([0.5, 0.0, 2.0])
    losses = ts.distill.kd_loss(student, teacher, reduction="none")
    (weighted,) = torch.autograd.grad((losses * weights).sum(), student)
    (plain,) = torch.autograd.grad(ts.distill.kd_loss(student, teacher, reduction="sum"), student)
    torch.testing.assert_close(weighted, plain * weights.to(dtype)[:, None])


def test_small_float16_gradients_survive_a_loss_scale() -> None:
    student, teacher = logits(64, 2000, dtype=torch.float16, spread=1e-3)
    double = student.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(ts.distill.kd_loss(double, teacher.double()), double)
    assert (exact.abs() < 2**-25).double().mean() > 0.9  # float16 would make these 0
    scale = 65536.0
    (gradient,) = torch.autograd.grad(ts.distill.kd_loss(student, teacher) * scale, student)
    torch.testing.assert_close(gradient.double(), exact * scale, rtol=2e-3, atol=1e-6)


def test_one_tensor_of_the_logits_size_is_kept() -> None:
    student, teacher = logits(8, 100)
    saved: list[int] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        ts.distill.KDLoss()(student, teacher, torch.zeros(8, dtype=torch.int64))
    assert saved == [student.numel()]


# ---- the rest of torch ----


@pytest.mark.parametrize("teacher_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_different_precision_need_no_cast(teacher_dtype: torch.dtype) -> None:
    student, teacher = logits(4, 60, dtype=torch.bfloat16)
    teacher = teacher.to(teacher_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ts.distill.kd_loss(student, teacher)
    torch.testing.assert_close(loss, ts.distill.kd_loss(student.float(), teacher.float()))


def test_inputs_are_left_alone() -> None:
    student, teacher = logits(4, 60)
    before = student.detach().clone(), teacher.clone()
    ts.distill.kd_loss(student, teacher).backward()
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])


def test_compiles_as_one_graph() -> None:
    student, teacher = logits(4, 60)
    target = torch.tensor([1, 2, -100, 4])
    loss = ts.distill.KDLoss()
    compiled = torch.compile(lambda s: loss(s * 2, teacher, target), fullgraph=True, backend="aot_eager")
    want = loss_and_gradient(lambda s: loss(s * 2, teacher, target), student)
    for got, wanted in zip(loss_and_gradient(compiled, student), want, strict=True):
        torch.testing.assert_close(got, wanted)


def test_exports_as_one_node() -> None:
    student, teacher = logits(4, 60)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(
        ts.distill.KDLoss(),
        (student.detach(), teacher, torch.arange(4)),
        dynamic_shapes=({0: rows}, {0: rows}, {0: rows}),
    )
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["torchslim.kd_loss.default"]
    student, teacher = logits(7, 60)
    labels = torch.arange(7)
    assert torch.equal(program.module()(student, teacher, labels), ts.distill.KDLoss()(student, teacher, labels))


def test_other_devices_get_the_same_numbers() -> None:
    """Their path is a composite of ATen ops; the environment variable makes the CPU take it in another process."""
    program = """
import torch, torchslim
torch.manual_seed(0)
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for reduction in ("none", "sum", "batchmean"):
        student, teacher = torch.randn(5, 40).to(dtype).requires_grad_(), torch.randn(5, 40).to(dtype)
        teacher[0, 0] = -torch.inf
        mask, target = torch.tensor([1, 1, 0, 1, 1]).bool(), torch.tensor([3, 0, 1, -100, 39])
        for hard in ((), (target, 0.3, -100, 0.1), (target, 0.3)):
            loss = torch.ops.torchslim.kd_loss(student, teacher, 3.0, reduction, mask, 0.7, *hard)
            (gradient,) = torch.autograd.grad(loss.sum(), student)
            print(dtype, reduction, loss.dtype, gradient.dtype)
            print(*loss.reshape(-1).tolist(), *gradient.reshape(-1).tolist())
"""
    printed = []
    for composite in ("0", "1"):
        environment = {**os.environ, "TORCHSLIM_COMPOSITE": composite}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        printed.append(run.stdout.splitlines())
    assert printed[0][::2] == printed[1][::2]
    for kernel, composite in zip(printed[0][1::2], printed[1][1::2], strict=True):
        values = [torch.tensor([float(x) for x in line.split()]) for line in (kernel, composite)]
        torch.testing.assert_close(*values, rtol=2**-7, atol=1e-5)


# ---- the module ----


def test_the_module_has_no_state_and_copies() -> None:
    loss = ts.distill.KDLoss(temperature=2.0, reduction="sum")
    assert loss.state_dict() == {}
    assert repr(copy.deepcopy(loss)) == repr(loss)
    assert "temperature=2.0" in repr(loss)


@pytest.mark.parametrize(("ce_weight", "kd_weight"), [(1.0, 0.0), (0.0, 1.0)])
def test_a_term_of_weight_zero_is_absent(ce_weight: float, kd_weight: float) -> None:
    student, teacher = logits(2, 4)
    infinite = torch.tensor([[0.0, 0.0, 0.0, -math.inf]] * 2)
    target = torch.tensor([3, 3])
    loss = ts.distill.KDLoss(ce_weight=ce_weight, kd_weight=kd_weight)
    if kd_weight == 0.0:
        assert loss(infinite, teacher, torch.tensor([0, 0])).isfinite()
        torch.testing.assert_close(loss(student, teacher, target), F.cross_entropy(student, target))
    else:
        assert loss(infinite, infinite, target).isfinite()
        torch.testing.assert_close(loss(student, teacher, target), ts.distill.kd_loss(student, teacher))

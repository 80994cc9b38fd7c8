# SPDX-License-Identifier: BSD-3-Clause
import copy
import json
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from graph_zoo import ZOO, Block, randomize
from torch import Tensor, nn
from torch.nn.utils import prune

import torchslim as ts


class Custom(nn.Module):
    """A convolution with `function(self, x)` behind it."""

    def __init__(self, function: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.table = nn.Parameter(torch.randn(4, 1, 1))
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self, self.conv(x))


@pytest.mark.parametrize("name", ZOO)
def test_graph_computes_what_the_module_computes_in_eval(name: str) -> None:
    make, shape = ZOO[name]
    model = randomize(make())
    graph = ts.graph.capture(model, torch.randn(shape))
    model.eval()
    for batch in (shape[0], 5):
        x = torch.randn(batch, *shape[1:])
        torch.testing.assert_close(ts.graph.run_float(graph, x), model(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_model_is_left_as_it_was(name: str) -> None:
    make, shape = ZOO[name]
    model = make()
    next(model.children(), nn.Identity()).eval()  # a part that was frozen stays frozen
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(shape)
    x_before = x.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ts.graph.capture(model, (x,))
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(x, x_before)


@pytest.mark.parametrize("name", ZOO)
def test_tensors_are_the_models_own_under_their_names(name: str) -> None:
    make, shape = ZOO[name]
    model = make()
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    named = set()
    for node in ts.graph.capture(model, torch.randn(shape)).nodes:
        for tensor in (node.weight, node.bias, node.running_mean, node.running_var):
            if tensor.name:
                assert tensor.value is not None
                assert tensor.value.data_ptr() == state[tensor.name].data_ptr()
                named.add(tensor.name)
    assert named == {key for key in state if not key.endswith("num_batches_tracked")}


def test_kinds_layers_and_inputs_of_a_residual_block() -> None:
    graph = ts.graph.capture(nn.Sequential(Block(3, 4, 2)), torch.randn(1, 3, 8, 8))
    rows = [(node.kind, node.layer, node.inputs) for node in graph.nodes]
    assert rows == [
        ("input", "", []),
        ("conv2d", "0.conv1", [0]),
        ("batch_norm2d", "0.bn1", [1]),
        ("relu", "0", [2]),
        ("conv2d", "0.conv2", [3]),
        ("batch_norm2d", "0.bn2", [4]),
        ("conv2d", "0.shortcut.0", [0]),
        ("batch_norm2d", "0.shortcut.1", [6]),
        ("add", "0", [5, 7]),
        ("relu", "0", [8]),
    ]
    assert graph.users(0) == [1, 6]
    assert graph.nodes[1].window.stride == [2, 2]
    assert graph.nodes[-1].shape == [1, 4, 4, 4]


def test_str_and_json_show_every_node() -> None:
    make, shape = ZOO["depthwise"]
    graph = ts.graph.capture(make(), torch.randn(shape))
    assert len(str(graph).splitlines()) == len(graph) + 1
    nodes = json.loads(graph.to_json())["nodes"]
    assert [node["kind"] for node in nodes] == [node.kind for node in graph.nodes]
    assert nodes[1]["weight"] == {"name": "body.0.weight", "shape": [8, 3, 3, 3]}
    assert nodes[4]["groups"] == 8


@pytest.mark.parametrize(
    "head",
    [
        lambda self, x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda self, x: F.adaptive_avg_pool2d(x, (1, 1)).view(x.size(0), -1),
        lambda self, x: x.mean(dim=(2, 3)),
        lambda self, x: x.mean([2, 3], keepdim=True).reshape(-1, 4),
        lambda self, x: F.avg_pool2d(x, x.shape[-2:]).flatten(1),
        lambda self, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
        lambda self, x: F.adaptive_avg_pool2d(x, 1).squeeze((2, 3)),
    ],
)
def test_every_way_to_pool_globally_gives_the_same_nodes(head: Callable[[nn.Module, Tensor], Tensor]) -> None:
    graph = ts.graph.capture(Custom(head), torch.randn(2, 3, 8, 8))
    assert [node.kind for node in graph.nodes] == ["input", "conv2d", "global_avg_pool", "flatten"]
    assert graph.nodes[-1].shape == [2, 4]


def _features(x: Tensor) -> int:
    count = 1
    for size in x.size()[1:]:
        count *= size
    return count


@pytest.mark.parametrize(
    "flat",
    [
        lambda self, x: x.view(-1, _features(x)),
        lambda self, x: x.view(-1, 4 * 6 * 6),
        lambda self, x: x.view(x.shape[0], -1),
        lambda self, x: x.reshape(x.size(0), x.size(1) * x.size(2) * x.size(3)),
        lambda self, x: torch.flatten(x, start_dim=1, end_dim=3),
        lambda self, x: nn.Flatten(1, -1)(x),
    ],
)
def test_every_way_to_flatten_gives_the_same_node(flat: Callable[[nn.Module, Tensor], Tensor]) -> None:
    graph = ts.graph.capture(Custom(flat), torch.randn(2, 3, 8, 8))
    assert [node.kind for node in graph.nodes] == ["input", "conv2d", "flatten"]


def test_a_mask_on_a_weight_is_part_of_the_weight() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    prune.l1_unstructured(model[0], "weight", 0.5)
    x = torch.randn(2, 3, 8, 8)
    graph = ts.graph.capture(model, x)
    torch.testing.assert_close(ts.graph.run_float(graph, x), model(x).detach())
    assert ts.graph.count_layers(graph)[0].zeros == 54


def test_dropped_results_and_identities_leave_no_node() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        _ = torch.sigmoid(x)  # nobody reads it
        return F.dropout(x.contiguous().clone(), 0.5, self.training).float()

    graph = ts.graph.capture(Custom(forward), torch.randn(2, 3, 8, 8))
    assert [node.kind for node in graph.nodes] == ["input", "conv2d"]


def test_a_weight_that_is_computed_has_no_name() -> None:
    graph = ts.graph.capture(
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), torch.randn(1, 3, 8, 8)
    )
    assert graph.nodes[1].weight.name == ""
    assert graph.nodes[1].bias.name == "0.bias"


def _flat_then_in_place(self: nn.Module, x: Tensor) -> Tensor:
    flat = x.flatten(1)
    x.relu_()
    return flat


REFUSED = {
    "unknown op": (lambda self, x: x.sigmoid(), "aten::sigmoid.*not supported; replace it by"),
    "cat": (lambda self, x: torch.cat([x, x], 1), "list of values that depend on the input"),
    "product": (lambda self, x: x * x, "aten::mul.*not supported"),
    "parameter added": (lambda self, x: x + self.table, "adding a constant or parameter"),
    "alpha": (lambda self, x: torch.add(x, x, alpha=2), "aten::add.*expected alpha of 1"),
    "broadcast": (lambda self, x: x + x.mean((2, 3), keepdim=True), "expected two tensors of one shape"),
    "clamp": (lambda self, x: x.clamp(0, 1), "only clamps to"),
    "clamp below": (lambda self, x: x.clamp(max=6), "only clamps to"),
    "hardtanh": (lambda self, x: F.hardtanh(x), "only clamps to"),
    "baked batch": (lambda self, x: x.view(2, -1), "batch size 2 is written into the trace; use flatten"),
    "other view": (lambda self, x: x.view(x.size(0), 2, -1), r"only a view to \(batch, features\)"),
    "rows mixed": (lambda self, x: x.reshape(-1, 2), r"only a view to \(batch, features\)"),
    "flatten all": (lambda self, x: x.flatten(), r"only flatten\(1\)"),
    "squeeze": (lambda self, x: x.mean((2, 3), True).squeeze(), "would drop a batch of one"),
    "mean of one dimension": (lambda self, x: x.mean(3), "only the mean over height and width"),
    "adaptive pool": (lambda self, x: F.adaptive_avg_pool2d(x, 2), "got 2x2; use avg_pool2d"),
    "batch statistics": (
        lambda self, x: F.batch_norm(x, None, None, training=True),
        r"statistics of the batch; call eval\(\)",
    ),
    "dropout": (lambda self, x: F.dropout(x, 0.5, True), "dropout is on"),
    "two outputs": (lambda self, x: (x, x), "several values"),
    "dictionary": (lambda self, x: {"logits": x}, "several values"),
    "control flow": (lambda self, x: x if x.sum() > 0 else -x, "control flow.*test_capture.py"),
    "item": (lambda self, x: F.relu(x) if x.max().item() > 0 else x, "control flow"),
    "view of changed memory": (_flat_then_in_place, "changes in place"),
    "one-dimensional": (lambda self, x: F.max_pool1d(x.flatten(2), 2), "aten::flatten"),
    "constant": (lambda self, x: self.table * 2, "computed from its input"),
    "double": (lambda self, x: x.double(), "float32, got a conversion to Double"),
    "noise": (lambda self, x: x + torch.randn(2, 4, 6, 6), "random"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_place_and_remedy(name: str) -> None:
    function, message = REFUSED[name]
    model = Custom(function)
    with pytest.raises(ValueError, match=message):
        ts.graph.capture(model, torch.randn(2, 3, 8, 8))
    assert model.training


def test_message_names_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Hardswish()))
    with pytest.raises(ValueError, match=r"aten::hardswish in layer `1.0`, .*functional.py:\d+: "):
        ts.graph.capture(model, torch.randn(1, 3, 8, 8))


def test_bad_parameters_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[1].running_var[2] = float("nan")
    with pytest.raises(ValueError, match=r"`1.running_var` holds NaN or Inf"):
        ts.graph.capture(model, torch.randn(1, 3, 8, 8))
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(TypeError, match="float32 example, got Double"):
        ts.graph.capture(nn.Conv2d(3, 4, 3).double(), x.double())


def test_bad_arguments_are_refused() -> None:
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(TypeError, match="Module, got function"):
        ts.graph.capture(F.relu, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one input tensor, got 2"):
        ts.graph.capture(nn.Conv2d(3, 4, 3), (x, x))
    with pytest.raises(TypeError, match="as example input, got int"):
        ts.graph.capture(nn.Conv2d(3, 4, 3), (3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not empty"):
        ts.graph.capture(nn.Conv2d(3, 4, 3), torch.randn(0, 3, 8, 8))


def test_a_scripted_module_without_control_flow_is_captured() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.conv2d(x, self.weight)
            y.relu_()
            return y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Plain())
    graph = ts.graph.capture(scripted, torch.randn(1, 3, 8, 8))
    assert [node.kind for node in graph.nodes] == ["input", "conv2d", "relu"]

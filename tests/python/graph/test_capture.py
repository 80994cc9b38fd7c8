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
        self.pair = nn.Parameter(torch.randn(2, 4, 6, 6))
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


def _rows(self: Custom, x: Tensor) -> Tensor:
    return self.table.expand(4, 2, 6)[None].repeat(x.shape[0], 1, 1, 1)


def _seconds(x: Tensor) -> Tensor:
    """With the batch in the second place, and as sizes say where."""
    y = x.flatten(2).permute(2, 0, 1)
    places, images, channels = y.shape
    return y.reshape(places * images, channels).view(places, images, channels) * 2


def _queries(x: Tensor) -> tuple[Tensor, ...]:
    return x.flatten(2).reshape(x.size(0), 2, 2, 36).permute(2, 0, 1, 3).unbind(0)


REFUSED = {
    "unknown op": (lambda self, x: x.lgamma(), "aten::lgamma.*not supported; replace it by"),
    "baked batch of a constant": (
        lambda self, x: torch.cat([x, self.table.expand(2, 4, 6, 6)], 1),
        "batch size 2 is written into the trace; expand the tensor",
    ),
    "a constant for each image": (
        lambda self, x: torch.cat([x, self.pair.expand(x.size(0), 4, 6, 6)], 1),
        "not the same for each image",
    ),
    "batch last": (lambda self, x: x.transpose(0, 1), "the batch is not the first dimension"),
    "sum over a batch that moved": (lambda self, x: x.transpose(0, 1).sum(1), "across the images of the batch"),
    "pool of channels": (
        lambda self, x: F.max_pool2d(x.transpose(0, 1), 2).transpose(0, 1),
        "batch is not the first dimension of its input; transpose it back",
    ),
    "softmax over the batch": (lambda self, x: x.softmax(0), "across the images of the batch"),
    "sum of all": (lambda self, x: x * x.sum(), "across the images of the batch"),
    "batch split": (lambda self, x: x.chunk(2)[0], "splits the batch"),
    "batch arithmetic": (lambda self, x: x.view(x.size(0) * 2, -1), "computed from the batch size"),
    "baked batch": (lambda self, x: x.view(2, -1), "batch size 2 is written into the trace; use flatten"),
    "baked batch in a view": (lambda self, x: x.view(2, 2, -1), "batch size 2 is written into the trace"),
    "squeeze": (lambda self, x: x.mean((2, 3), True).squeeze(), "would drop a batch of one"),
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


OTHERS = {
    "sigmoid": lambda self, x: x.sigmoid(),
    "hardswish in place": lambda self, x: F.hardswish(x, inplace=True),
    "cat": lambda self, x: torch.cat([x, x.relu(), x], 1),
    "stack": lambda self, x: torch.stack([x, -x], 2).sum(2),
    "product": lambda self, x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "numbers": lambda self, x: (x * 2 + 1) / 3 - 0.5,
    "parameter added": lambda self, x: x + self.table,
    "alpha": lambda self, x: torch.add(x, x.relu(), alpha=2),
    "broadcast": lambda self, x: x + x.mean((2, 3), keepdim=True),
    "clamp": lambda self, x: x.clamp(0, 1).clamp(max=0.5) + F.hardtanh(x),
    "view": lambda self, x: x.view(x.size(0), 2, -1).transpose(1, 2).flatten(1),
    "shuffle": lambda self, x: x.view(x.size(0), 2, 2, 6, 6).transpose(1, 2).contiguous().view(x.size(0), 4, 6, 6),
    "slices": lambda self, x: x[:, 1:, :, ::2] + x[:, :3, :, 1::2],
    "chunk": lambda self, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1],
    "split": lambda self, x: torch.cat(list(reversed(x.split([1, 3], 1))), 1),
    "means": lambda self, x: x.mean(3).mean(2),
    "adaptive pools": lambda self, x: F.adaptive_avg_pool2d(x, 2) + F.adaptive_max_pool2d(x, 2),
    "resize": lambda self, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, (12, 12), mode="bilinear"),
    "pad": lambda self, x: F.pad(x, (1, 1, 0, 0)).relu(),
    "softmax": lambda self, x: x.flatten(2).softmax(1),
    "attention": lambda self, x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
    "norms": lambda self, x: F.layer_norm(F.instance_norm(x), (6, 6)),
    "one-dimensional": lambda self, x: F.max_pool1d(x.flatten(2), 2),
    "norm of roots": lambda self, x: F.rms_norm(x, (6, 6), self.table[0, 0].expand(6, 6), 1e-3),
    "standardised": lambda self, x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True) + 1e-3),
    "greater": lambda self, x: torch.where(x > 0.1, x, 2.0) + torch.max(x, -x).masked_fill(x < -0.5, -1.0),
    "constants between": lambda self, x: torch.cat([_rows(self, x), x, _rows(self, x), x, _rows(self, x)], 2),
    "constants before": lambda self, x: torch.cat([self.table.expand(x.size(0), 4, 6, 6), x], -1),
    "constant of the batch added": lambda self, x: x + self.table.expand(x.size(0), -1, 6, 6),
    "same padding, even kernel": lambda self, x: F.conv2d(x, torch.ones(4, 4, 2, 4), padding="same"),
    "batch second": lambda self, x: _seconds(x).transpose(0, 1).flatten(1),
    "batch third": lambda self, x: _queries(x)[0] @ _queries(x)[1].transpose(1, 2),
    "batch and places in one": lambda self, x: x.flatten(2)
    .transpose(0, 1)
    .reshape(4 * x.size(0), 36)
    .view(4, x.size(0), 36)
    .transpose(0, 1),
    "squeeze in part": lambda self, x: F.conv1d(x.mean((2, 3), True).squeeze(-1).transpose(1, 2), torch.ones(1, 1, 1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_operations_of_atens_run_as_they_did_at_any_batch_size(name: str) -> None:
    model = Custom(OTHERS[name]).eval()
    graph = ts.graph.capture(model, torch.randn(2, 3, 8, 8))
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(ts.graph.run_float(graph, x), model(x).detach())
    assert len(str(graph).splitlines()) == len(graph) + 1
    assert len(json.loads(graph.to_json())["nodes"]) == len(graph)


class Attends(nn.Module):
    def __init__(self, batch_first: bool, need_weights: bool, masked: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.batch_first, self.need_weights, self.masked = batch_first, need_weights, masked

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.batch_first else x.transpose(0, 1)
        mask = torch.ones(5, 5).triu(1).bool() if self.masked else None
        result, weights = self.attention(y, y, y, need_weights=self.need_weights, attn_mask=mask)
        result = result if self.batch_first else result.transpose(0, 1)
        return result if weights is None else torch.cat([result, weights], 2)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_layers_are_taken_apart(batch_first: bool, need_weights: bool, masked: bool) -> None:
    model = Attends(batch_first, need_weights, masked).eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    graph = ts.graph.capture(model, torch.randn(1, 5, 8))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert "forward" not in model.attention.__dict__
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ts.graph.run_float(graph, x), model(x).detach())


def test_a_transformers_encoder() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    graph = ts.graph.capture(model, torch.randn(1, 5, 8))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ts.graph.run_float(graph, x), model(x).detach())


def test_message_names_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.RReLU()))
    with pytest.raises(ValueError, match=r"aten::rrelu in layer `1.0`, .*functional.py:\d+: "):
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

# SPDX-License-Identifier: BSD-3-Clause
"""`torchslim export`: from a model in Python code to a file."""

import argparse
import importlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

import torchslim
from torchslim.cli.commands import Commands, shape


def add_parser(commands: Commands) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "export",
        help="write a model as a .ptl, .onnx or .pte file",
        description="Writes a model as a file: in int8 if it is prepared or converted, in float if not. "
        "This RUNS the Python code that MODEL names, with your rights: name only code that you trust.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="file.py:function or package.module:function, called without arguments; it returns a model, "
        "or a model and an example batch",
    )
    parser.add_argument("out", metavar="OUT", help="path that ends in .ptl, .onnx or .pte")
    parser.add_argument(
        "--example", type=shape, metavar="1,3,224,224", help="shape of a batch, where MODEL returns no example"
    )
    parser.add_argument("--opset", type=int, help="of .onnx files: 13 to 21 (the lowest that does)")
    parser.add_argument(
        "--unpickle",
        action="store_true",
        help="MODEL is a file that torch.save wrote of a whole module; reading it runs whatever code is in it",
    )
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    found = _unpickled(options.model) if options.unpickle else _called(options.model)
    model, example = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{options.model} gave a {type(model).__name__}, expected an nn.Module")
    if options.example is not None:
        example = torch.zeros(options.example)
    if not isinstance(example, Tensor):
        raise ValueError(
            f"{options.model} gave no example batch; pass its shape, such as --example 1,3,224,224, "
            "or return (model, example)"
        )
    try:
        saved = torchslim.deploy.save(model, example, options.out, opset=options.opset)
    except RuntimeError as error:  # of the model's own forward
        raise ValueError(
            f"{options.model}: the model does not run a batch of shape {tuple(example.shape)}: {error}"
        ) from error
    print(f"{saved.path}: {saved.kind}, {saved.bytes:,} bytes")
    return 0


def _called(name: str) -> object:
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function:
        raise ValueError(
            f"MODEL must be file.py:function or package.module:function, got {name!r}; "
            "pass --unpickle to read a module that torch.save wrote"
        )
    with _import_path(os.path.dirname(os.path.abspath(place)) if place.endswith(".py") else os.getcwd()):
        try:
            value: object = _module(place)
            for part in function.split("."):
                value = getattr(value, part)
            if isinstance(value, nn.Module) or not callable(value):
                return value
            return value()
        except FileNotFoundError:
            raise
        except Exception as error:  # of the user's code
            raise ValueError(f"{name} failed with {type(error).__name__}: {error}") from error


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    if not os.path.isfile(place):
        raise FileNotFoundError(f"no such file: {place}")
    name = os.path.splitext(os.path.basename(place))[0]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None  # for a path that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import would: dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module


@contextmanager
def _import_path(folder: str) -> Iterator[None]:
    """Lets the model's code import its neighbours, as `python file.py` does."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _unpickled(path: str) -> object:
    with _import_path(os.getcwd()):
        try:
            return torch.load(path, map_location="cpu", weights_only=False)
        except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, KeyError) as error:
            raise ValueError(f"{path} is no file that torch.save wrote of a module: {error}") from error

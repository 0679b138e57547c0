"""Writes ``fixtures/`` with PyTorch. The tests read them without PyTorch.

    python3.11 -m venv torch-venv && torch-venv/bin/pip install torch==2.13.0 numpy safetensors
    torch-venv/bin/python tests/weights/make_fixtures.py

The networks have the names and the structure of the real ones, but at most three channels. ``NAME.pth`` has the zip
format of PyTorch 1.6 and later, ``NAME_legacy.pth`` the older format, and ``NAME.npz`` the same tensors as NumPy arrays
(bfloat16 converted to float32, which is exact). Networks that need only one format are ``.safetensors`` files, the
smallest.
"""

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

FIXTURES = Path(__file__).parent / "fixtures"
CLASSES = 3
WIDTHS = {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 2, "conv5": 3, "fc": 2}


class SEAN(nn.Module):
    """The authors' network with the modules of its ``state_dict()``: three poolings, fc6 and fc7 in ``features``."""

    def __init__(self):
        super().__init__()
        layers = vgg_layers(pool4=False)
        for channels in (WIDTHS["conv5"], WIDTHS["fc"]):
            layers += [nn.Conv2d(channels, WIDTHS["fc"], 3, padding=4, dilation=4), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.aconv = nn.Conv2d(WIDTHS["fc"], 1, 1, bias=False)
        self.classifier = nn.Module()
        self.classifier.conv2d_list = nn.ModuleList(
            nn.Conv2d(WIDTHS["fc"], CLASSES, 3, padding=d, dilation=d) for d in (6, 12, 18, 24)
        )


class VGG16(nn.Module):
    """torchvision's VGG-16: five poolings, optional batch normalisation, and a classifier of three linear layers."""

    def __init__(self, batch_norm: bool = False):
        super().__init__()
        self.features = nn.Sequential(*vgg_layers(pool4=True, batch_norm=batch_norm))
        widths = (WIDTHS["conv5"], 3, 3, 2)
        linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.classifier = nn.Sequential(
            linear[0], nn.ReLU(), nn.Dropout(), linear[1], nn.ReLU(), nn.Dropout(), linear[2]
        )


class FCN8s(nn.Module):
    """The network of ``fcn8s_from_caffe``, with one attribute per layer."""

    def __init__(self):
        super().__init__()
        convolutions = [layer for layer in vgg_layers(pool4=True) if isinstance(layer, nn.Conv2d)]
        names = [f"conv{block}_{i + 1}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(depth)]
        for name, layer in zip(names, convolutions, strict=True):
            self.add_module(name, layer)
        self.fc6 = nn.Conv2d(WIDTHS["conv5"], 3, 7)
        self.fc7 = nn.Conv2d(3, 3, 1)
        self.score_fr = nn.Conv2d(3, 2, 1)
        self.score_pool3 = nn.Conv2d(WIDTHS["conv3"], 2, 1)
        self.score_pool4 = nn.Conv2d(WIDTHS["conv4"], 2, 1)
        self.upscore2 = nn.ConvTranspose2d(2, 2, 4, stride=2, bias=False)


def vgg_layers(pool4: bool, batch_norm: bool = False) -> list[nn.Module]:
    layers, channels = [], 3
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        width = WIDTHS[f"conv{block}"]
        for _ in range(depth):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            channels = width
        if block < 4 or pool4:
            layers.append(nn.MaxPool2d(2))
    return layers


def odd_tensors() -> "OrderedDict[str, torch.Tensor]":
    """Tensors of every element type and with every kind of storage layout."""
    shared = torch.arange(24, dtype=torch.float32)
    values = torch.tensor([[1.5, -2.25, 3e-5], [65504.0, 0.1, -0.0]])
    return OrderedDict(
        half=values.half(),
        bfloat16=values.bfloat16(),
        double=values.double() / 3,
        int64=torch.tensor([2**40, -1]),
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        transposed=torch.arange(6.0).reshape(2, 3).T,
        channels_last=torch.arange(48.0).reshape(2, 4, 3, 2).contiguous(memory_format=torch.channels_last),
        head_of_shared=shared[:10],
        offset_in_shared=shared[5:17].reshape(3, 4),
        strided_in_shared=shared[3:].view(3, 7)[:, 1::3],
        half_offset=torch.arange(9.0).half()[4:7],
        bfloat16_strided=torch.arange(9.0).bfloat16()[1::3],
        expanded=torch.tensor([7.0, 8.0]).reshape(2, 1).expand(2, 3),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=nn.Parameter(torch.arange(4.0)),
        non_finite=torch.tensor([float("inf"), float("nan")]),
    )


def save(name: str, content: object, tensors: dict[str, torch.Tensor]) -> None:
    """Writes ``content`` in both of PyTorch's formats, and the tensors that reading it should give."""
    torch.save(content, FIXTURES / f"{name}.pth")
    torch.save(content, FIXTURES / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {
        key: (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        for key, value in tensors.items()
    }
    np.savez_compressed(FIXTURES / f"{name}.npz", **arrays)


def save_safetensors(name: str, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, FIXTURES / f"{name}.safetensors")
    (FIXTURES / f"{name}.safetensors").chmod(0o644)


def main() -> None:
    torch.manual_seed(0)
    FIXTURES.mkdir(exist_ok=True)
    sean = SEAN().state_dict()
    save("sean", sean, sean)
    save_safetensors("sean_bfloat16", {key: value.bfloat16() for key, value in sean.items()})
    torchvision = VGG16().state_dict()
    torch.save(torchvision, FIXTURES / "vgg16_torchvision.pth")
    save_safetensors("vgg16_torchvision", torchvision)
    save_safetensors("vgg16_bn", VGG16(batch_norm=True).state_dict())
    caffe = FCN8s().state_dict()  # published in the older format
    torch.save(caffe, FIXTURES / "vgg16_caffe_legacy.pth", _use_new_zipfile_serialization=False)
    save_safetensors("vgg16_caffe", caffe)
    save("odd", odd_tensors(), odd_tensors())

    # A checkpoint of a training script: several networks, an optimiser with state, DataParallel's prefix.
    small = nn.DataParallel(nn.Linear(2, 1))
    tx = torch.optim.Adam(small.parameters())
    small(torch.ones(1, 2)).sum().backward()
    tx.step()
    student = {key: value + 1 for key, value in small.state_dict().items()}
    checkpoint = {"epoch": 3, "student": student, "optimizer": tx.state_dict(), "teacher": small.state_dict()}
    save("checkpoint", checkpoint, small.module.state_dict())

    # A pickled module instead of a state dict refers to the module's class and must be refused.
    torch.save(nn.Linear(1, 1), FIXTURES / "whole_module.pth")


if __name__ == "__main__":
    main()

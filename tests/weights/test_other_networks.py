"""Tests of weights of networks other than ``deeplab``: exchange, VGG-16's fully connected layers, and whole runs."""

import functools
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from sean_jax import export, port_weights, weights
from sean_jax.errors import UserError
from sean_jax.models import NETWORKS
from sean_jax.models.fcn8s import FCN8s
from sean_jax.ops import implementation
from sean_jax.run import stages
from sean_jax.run.trained import open_network
from sean_jax.scoring.predictor import Predictor

pytestmark = pytest.mark.xdist_group("fcn8s_run")

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
METADATA = {"architecture": {"name": "fcn8s"}, "input_convention": "rgb_normalized"}
RNG = np.random.default_rng(0)


@functools.cache
def _params():
    """A parameter tree of FCN-8s, with the fixtures' trunk and two classes; its sizes fit no setting."""
    vgg = weights.read(FIXTURES / "vgg16_caffe.safetensors").tensors
    trunk = {
        layer: {"kernel": _normal(*vgg[f"{layer}.weight"].transpose(2, 3, 1, 0).shape), "bias": _normal(len(bias))}
        for layer, bias in ((name.removesuffix(".bias"), x) for name, x in vgg.items() if name.endswith(".bias"))
        if layer.startswith("conv")
    }
    shapes = {"fc6": (7, 7, 3, 4), "fc7": (1, 1, 4, 4), "score_fr": (1, 1, 4, 2)}
    shapes |= {"score_pool3": (1, 1, 2, 2), "score_pool4": (1, 1, 2, 2)}
    head = {layer: {"kernel": _normal(*shape), "bias": _normal(shape[-1])} for layer, shape in shapes.items()}
    head |= {"upscore2": {"kernel": _normal(4, 4, 2, 2)}, "upscore8": {"kernel": _normal(16, 16, 2, 2)}}
    return {"trunk": trunk, "head": head | {"upscore_pool4": {"kernel": _normal(4, 4, 2, 2)}}}


def _normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def _zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def _file() -> weights.WeightsFile:
    return weights.WeightsFile(weights.from_params(_params(), FCN8s.TORCH_MODULES), METADATA, "some.npz")


def _bits(tree) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def test_weights_written_by_this_project_load_back_to_the_bit():
    file = _file()
    assert weights.identify(file) == "fcn8s"
    params, report = weights.into_params(file, _zeros(_params()), FCN8s.TORCH_MODULES)
    assert _bits(params) == _bits(_params())
    assert (report.missing, report.unexpected) == ([], [])
    # PyTorch stores transposed convolutions with the input channels first.
    kernel = _params()["head"]["upscore8"]["kernel"]
    np.testing.assert_array_equal(file.tensors["upscore8.weight"], kernel.transpose(3, 2, 0, 1))


def test_weights_of_another_network_or_incomplete_ones_are_refused():
    deeplab = NETWORKS["deeplab"]
    with pytest.raises(UserError, match=r"holds weights of fcn8s but lacks .*choose the architecture"):
        weights.into_params(_file(), _zeros(_params()), deeplab.TORCH_MODULES)
    with pytest.raises(UserError, match=r"holds weights of sean but lacks .*choose the architecture"):
        weights.into_params(weights.read(FIXTURES / "sean.npz"), _zeros(_params()), FCN8s.TORCH_MODULES)
    file = _file()
    del file.tensors["score_fr.bias"]
    with pytest.raises(UserError, match=r"lacks score_fr\.bias"):
        weights.into_params(file, _zeros(_params()), FCN8s.TORCH_MODULES)


def _torchvision(weight6: np.ndarray, weight7: np.ndarray, names=("classifier.0", "classifier.3")):
    """The fixture with other fully connected layers."""
    file = weights.read(FIXTURES / "vgg16_torchvision.safetensors")
    tensors = {name: x for name, x in file.tensors.items() if not name.startswith("classifier.")}
    for name, weight in zip(names, (weight6, weight7), strict=True):
        tensors |= {f"{name}.weight": weight, f"{name}.bias": _normal(len(weight))}
    return file._replace(tensors=tensors)


@pytest.mark.parametrize(
    ("names", "linear"), [(("classifier.0", "classifier.3"), True), (("pre_logits.fc1", "pre_logits.fc2"), False)]
)
def test_fc6_and_fc7_start_from_torchvisions_and_timms_classifier(names, linear):
    fc6, fc7 = _normal(4, 3, 7, 7), _normal(4, 4, 1, 1)
    file = _torchvision(fc6.reshape(4, -1) if linear else fc6, fc7.reshape(4, 4) if linear else fc7, names)
    params, report = weights.into_params(file, _zeros(_params()), FCN8s.TORCH_MODULES)
    for o, i, y, x in np.ndindex(fc6.shape):
        assert params["head"]["fc6"]["kernel"][y, x, i, o] == fc6[o, i, y, x]
    np.testing.assert_array_equal(params["head"]["fc7"]["kernel"][0, 0], fc7[..., 0, 0].T)
    for layer, name in zip(("fc6", "fc7"), names, strict=True):
        np.testing.assert_array_equal(params["head"][layer]["bias"], file.tensors[f"{name}.bias"])
    assert len(report.loaded) == 30
    assert "score_fr.weight" in report.missing
    assert not params["head"]["score_fr"]["kernel"].any()


def test_fc6_and_fc7_start_from_caffes():
    file = weights.read(FIXTURES / "vgg16_caffe.safetensors")
    fc6, fc7 = _normal(4, 3, 7, 7), _normal(4, 4, 1, 1)
    file = file._replace(tensors=file.tensors | {"fc6.weight": fc6, "fc6.bias": _normal(4), "fc7.weight": fc7})
    file = file._replace(tensors=file.tensors | {"fc7.bias": _normal(4), "score_fr.weight": _normal(21, 4, 1, 1)})
    params, report = weights.into_params(file, _zeros(_params()), FCN8s.TORCH_MODULES)
    np.testing.assert_array_equal(params["head"]["fc6"]["kernel"], fc6.transpose(2, 3, 1, 0))
    assert "score_fr.weight" in report.unexpected  # of PASCAL's classes


def test_fully_connected_layers_that_do_not_fit_are_left_out_whole():
    """Of 8 channels in place of 4; and DeepLab's 3×3 convolutions, even with as many channels as VGG-16's."""
    file = _torchvision(_normal(8, 3 * 49), _normal(4, 4))
    params, report = weights.into_params(file, _zeros(_params()), FCN8s.TORCH_MODULES)
    assert not any(x.any() for x in params["head"]["fc6"].values())
    assert params["head"]["fc7"]["kernel"].any()
    assert {"classifier.0.weight", "classifier.0.bias"} <= set(report.unexpected)
    deeplab = {"trunk": _params()["trunk"], "head": {"fc6": {"kernel": _normal(3, 3, 3, 8), "bias": _normal(8)}}}
    params, report = weights.into_params(file, deeplab)
    assert _bits(params["head"]) == _bits(deeplab["head"])
    assert "classifier.0.bias" in report.unexpected


@pytest.fixture(scope="module")
def run(roads, tmp_path_factory) -> pathlib.Path:
    """A run of one step; do not write to it."""
    workdir = tmp_path_factory.mktemp("fcn8s") / "run"
    network = {"architecture": "fcn8s", "width_multiplier": 1 / 32}
    assert stages.train(roads | network | {"method": "source_only", "steps": 1, "eval_split": "none"}, workdir)
    return workdir


def test_a_run_is_opened_ported_and_segments_images(run, tmp_path):
    trained = open_network(str(run))
    report = port_weights.port(str(run), str(tmp_path / "out.npz"))
    assert (report.kind, report.missing, report.unexpected) == ("fcn8s", [], [])
    ported = open_network(weights_file=str(tmp_path / "out.npz"))
    assert ported.experiment.config.architecture == "fcn8s"
    assert _bits(ported.params) == _bits(trained.params)
    image = Image.fromarray(RNG.integers(0, 256, (21, 30, 3)).astype(np.uint8))
    found = Predictor(ported.experiment, ported.params, native_size=True)(image)
    assert found.classes.shape == (21, 30)


def test_an_exported_program_computes_the_same(run, monkeypatch):
    monkeypatch.setenv(implementation.VARIABLE, "plain")
    trained = open_network(str(run))
    images = RNG.integers(0, 256, (2, 16, 32, 3)).astype(np.uint8)
    expected = jax.jit(trained.experiment.network().predict)(trained.params, images)
    found = jax.jit(export.export(trained, ("cpu",)).call)(images)
    np.testing.assert_allclose(found["logits"], expected.logits, rtol=1e-4, atol=1e-5)

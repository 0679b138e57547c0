"""Tests that files are identified by their names and converted to and from the parameter tree."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from sean_jax import weights
from sean_jax.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
WIDTHS = {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 2, "conv5": 3}
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
AUTHORS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27)
LAYERS = [f"conv{block}_{i + 1}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(depth)]


def fresh_params(classes=3, fc=2):
    """Parameters of the fixtures' narrow network in Flax's tree and layout."""
    rng = np.random.default_rng(7)

    def conv(inputs, outputs):
        kernel = rng.standard_normal((3, 3, inputs, outputs)).astype(np.float32)
        return {"kernel": kernel, "bias": rng.standard_normal(outputs).astype(np.float32)}

    trunk, channels = {}, 3
    for layer in LAYERS:
        trunk[layer] = conv(channels, WIDTHS[layer[:5]])
        channels = WIDTHS[layer[:5]]
    head = {"fc6": conv(channels, fc), "fc7": conv(fc, fc)}
    head["attention"] = {"conv": {"kernel": rng.standard_normal((1, 1, fc, 1)).astype(np.float32)}}
    head["classifier"] = {f"branch_{i}": conv(fc, classes) for i in range(4)}
    return {"trunk": trunk, "head": head}


def leaf(tree, *path):
    for key in path:
        tree = tree[key]
    return tree


def edit(file, remove=(), add=None, rename=None):
    tensors = {(rename or {}).get(name, name): value for name, value in file.tensors.items() if name not in remove}
    return file._replace(tensors={**tensors, **(add or {})})


SEAN = weights.read(FIXTURES / "sean.npz")
TORCHVISION_FILE = weights.read(FIXTURES / "vgg16_torchvision.safetensors", "rgb_normalized")


def read(name):
    """A fixture; torchvision's, whose names do not tell its input convention, with it."""
    return weights.read(FIXTURES / name, "rgb_normalized" if "torchvision" in name else None)


@pytest.mark.parametrize(
    ("name", "kind", "convention"),
    [
        ("sean.pth", "sean", "bgr_mean"),
        ("sean_legacy.pth", "sean", "bgr_mean"),
        ("sean_bfloat16.safetensors", "sean", "bgr_mean"),
        ("vgg16_torchvision.pth", "vgg16_torchvision", "rgb_normalized"),
        ("vgg16_caffe_legacy.pth", "vgg16_caffe", "bgr_mean"),
    ],
)
def test_identify_and_implied_metadata(name, kind, convention):
    file = read(name)
    assert weights.identify(file) == kind
    assert weights.metadata(file)["input_convention"] == convention
    assert weights.metadata(file).get("architecture") == ("reference" if kind == "sean" else None)


def test_metadata_in_the_file_overrides_implied_metadata():
    metadata = {"architecture": {"name": "deeplab", "classifier_branches": 2}, "input_convention": "rgb_normalized"}
    assert weights.metadata(SEAN._replace(metadata=metadata)) == metadata


@pytest.mark.parametrize(
    ("name", "prefix", "source"),
    [
        ("sean.pth", "features.", AUTHORS),
        ("vgg16_torchvision.pth", "features.", TORCHVISION),
        ("vgg16_caffe_legacy.pth", "", LAYERS),
    ],
)
def test_every_convolution_is_loaded_into_its_layer(name, prefix, source):
    file = read(name)
    params, report = weights.into_params(file, fresh_params())
    for layer, module in zip(LAYERS, source, strict=True):
        weight, kernel = file.tensors[f"{prefix}{module}.weight"], params["trunk"][layer]["kernel"]
        outputs, inputs, height, width = weight.shape
        assert kernel.shape == (height, width, inputs, outputs)
        assert kernel.dtype == np.float32
        for o, i, y, x in np.ndindex(weight.shape):
            assert kernel[y, x, i, o] == weight[o, i, y, x]
        np.testing.assert_array_equal(params["trunk"][layer]["bias"], file.tensors[f"{prefix}{module}.bias"])
        assert {f"{prefix}{module}.weight", f"{prefix}{module}.bias"} <= set(report.loaded)


def test_sean_loads_completely():
    params, report = weights.into_params(SEAN, fresh_params())
    assert sorted(report.loaded) == sorted(SEAN.tensors)
    assert (report.missing, report.unexpected) == ([], [])
    assert report.metadata["architecture"] == "reference"
    for layer, module in (("fc6", "features.29"), ("fc7", "features.31")):
        np.testing.assert_array_equal(
            params["head"][layer]["kernel"][1, 2, 0, 1], SEAN.tensors[f"{module}.weight"][1, 0, 1, 2]
        )
    np.testing.assert_array_equal(
        params["head"]["attention"]["conv"]["kernel"][0, 0, :, 0], SEAN.tensors["aconv.weight"][0, :, 0, 0]
    )
    for i in range(4):
        np.testing.assert_array_equal(
            params["head"]["classifier"][f"branch_{i}"]["bias"], SEAN.tensors[f"classifier.conv2d_list.{i}.bias"]
        )


@pytest.mark.parametrize("name", ["vgg16_torchvision.pth", "vgg16_caffe_legacy.pth"])
def test_vgg_keeps_the_initial_head_and_reports_it_missing(name):
    fresh = fresh_params()
    params, report = weights.into_params(read(name), fresh)
    assert len(report.loaded) == 26
    for path in (("fc6",), ("fc7",), ("attention", "conv"), ("classifier", "branch_3")):
        kernel = ("head", *path, "kernel")
        np.testing.assert_array_equal(leaf(params, *kernel), leaf(fresh, *kernel))
    assert set(report.missing) == {
        name for name in SEAN.tensors if not name.startswith(tuple(f"features.{i}." for i in AUTHORS))
    }
    left = {"vgg16_torchvision.pth": "classifier.6.weight", "vgg16_caffe_legacy.pth": "upscore2.weight"}[name]
    assert left in report.unexpected
    assert "missing (13)" in str(report)
    assert left in report.lines()[-1]


def test_into_params_copies_and_does_not_modify_its_inputs():
    fresh, again = fresh_params(), fresh_params()
    params, _ = weights.into_params(SEAN, fresh)
    params["trunk"]["conv1_1"]["bias"][:] = 9  # also writable, unlike the file's arrays
    np.testing.assert_array_equal(fresh["trunk"]["conv1_1"]["bias"], again["trunk"]["conv1_1"]["bias"])
    assert not (SEAN.tensors["features.0.bias"] == 9).any()


def test_from_params_inverts_into_params_bitwise():
    params = fresh_params()
    tensors = weights.from_params(params)
    assert list(tensors) == list(SEAN.tensors)  # also in the order of the authors' state_dict()
    for name, value in tensors.items():
        assert value.shape == SEAN.tensors[name].shape
        assert value.flags.c_contiguous
    back, report = weights.into_params(weights.WeightsFile(tensors, {}), fresh_params())
    assert not report.missing
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        found = leaf(back, *(key.key for key in path))
        assert found.tobytes() == value.tobytes(), path


def test_from_params_rejects_unknown_parameters():
    with pytest.raises(ValueError, match="backbone/conv9/kernel"):
        weights.from_params({"backbone": {"conv9": {"kernel": np.ones((3, 3, 1, 1))}}})


def test_wrong_number_of_classes_reports_both_shapes():
    message = "classifier.conv2d_list.0.weight has shape (3, 2, 3, 3), the network needs (5, 2, 3, 3)"
    with pytest.raises(UserError, match=re.escape(message) + ".*--classes"):
        weights.into_params(SEAN, fresh_params(classes=5))


def test_wrong_width_reports_both_shapes():
    with pytest.raises(
        UserError, match=re.escape("features.29.weight has shape (2, 3, 3, 3), the network needs (4, 3, 3, 3)")
    ):
        weights.into_params(SEAN, fresh_params(fc=4))


def test_wrong_shape_of_equal_size_is_refused():
    name = "classifier.conv2d_list.0.weight"
    file = edit(SEAN, add={name: SEAN.tensors[name].reshape(2, 3, 3, 3)})
    with pytest.raises(UserError, match=re.escape("has shape (2, 3, 3, 3), the network needs (3, 2, 3, 3)")):
        weights.into_params(file, fresh_params())


def test_batch_normalisation_of_other_networks_is_refused():
    file = edit(SEAN, add={"features.1.running_mean": np.zeros(2, np.float32)})
    with pytest.raises(UserError, match=r"batch normalisation \(features\.1\.running_mean\)"):
        weights.identify(file)


def test_conv5_distinguishes_torchvision_from_the_authors():
    shift = {
        f"features.{a}.{leaf}": f"features.{b}.{leaf}"
        for a, b in ((24, 23), (26, 25), (28, 27))
        for leaf in ("weight", "bias")
    }
    authors = edit(TORCHVISION_FILE, rename=shift)
    assert weights.identify(TORCHVISION_FILE) == "vgg16_torchvision"
    assert weights.identify(authors) == "vgg16_sean"
    assert weights.metadata(authors._replace(input_convention=None)) == {"input_convention": "bgr_mean"}
    one, _ = weights.into_params(TORCHVISION_FILE, fresh_params())
    two, _ = weights.into_params(authors, fresh_params())
    for i in (1, 2, 3):
        np.testing.assert_array_equal(one["trunk"][f"conv5_{i}"]["kernel"], two["trunk"][f"conv5_{i}"]["kernel"])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        # Conv5 mixes both numberings.
        (edit(TORCHVISION_FILE, rename={"features.24.weight": "features.23.weight"}), r"expected the names of SEAN"),
        # VGG-19 has 16 convolutions.
        (
            edit(TORCHVISION_FILE, add={"features.30.weight": np.ones((3, 3, 3, 3), np.float32)}),
            r"features\.\[0, .*30\]",
        ),
        (edit(TORCHVISION_FILE, remove={"features.10.bias"}), r"lacks features\.10\.bias"),
        (edit(SEAN, remove={"features.31.bias"}), r"lacks features\.31\.bias"),
        (
            edit(SEAN, add={"features.5.weight": np.ones((2, 9, 3, 3), np.float32)}),
            r"features\.5\.weight .*\(2, 9, 3, 3\).*\(2, 1, 3, 3\)",
        ),
        (edit(SEAN, add={"features.5.bias": np.ones(9, np.float32)}), r"features\.5\.bias .*\(9,\).*\(2,\)"),
        (edit(SEAN, add={"features.5.weight": np.float32(1)}), r"features\.5\.weight has shape \(\)"),
        (edit(SEAN, add={"features.5.weight": np.ones((2, 1, 3, 3), np.int8)}), r"features\.5\.weight has dtype int8"),
        (weights.WeightsFile({"layer1.0.conv1.weight": np.ones(1)}, {}), r"holds layer1\.0\.conv1\.weight.*expected"),
        (weights.WeightsFile({}, {}), "holds no tensors"),
    ],
)
def test_other_networks_are_refused(file, message):
    with pytest.raises(UserError, match=message):
        weights.identify(file)


@pytest.mark.parametrize("metadata", [{}, {"architecture": "reference", "input_convention": "bgr_mean"}])
@pytest.mark.parametrize("name", ["aconv.weight", "classifier.conv2d_list.3.bias"])
def test_incomplete_sean_weights_are_refused(name, metadata):
    file = edit(SEAN, remove={name})._replace(metadata=metadata)
    if name == "aconv.weight" and not metadata:
        assert weights.identify(file) == "deeplab_vgg16"  # AdaptSegNet's
        return
    with pytest.raises(UserError, match=f"lacks {name}"):
        weights.into_params(file, fresh_params())


def test_networks_without_attention_are_recognised():
    """AdaptSegNet's VGG-16, which SEAN's authors' code is built on: it has all layers but the attention's."""
    file, fresh = edit(SEAN, remove={"aconv.weight"}), fresh_params()
    params, report = weights.into_params(file, fresh)
    assert (report.kind, report.missing, report.unexpected) == ("deeplab_vgg16", ["aconv.weight"], [])
    assert params["head"]["attention"]["conv"]["kernel"] is fresh["head"]["attention"]["conv"]["kernel"]
    assert report.metadata["input_convention"] == "bgr_mean"
    architecture = report.metadata["architecture"]
    assert (architecture["attention"], architecture["classifier_branches"]) == (False, 2)
    del fresh["head"]["attention"]
    alone, report = weights.into_params(file, fresh)
    assert report.missing == []
    np.testing.assert_array_equal(leaf(alone, "head", "fc7", "bias"), file.tensors["features.31.bias"])
    with pytest.raises(
        UserError, match=r"weights of deeplab_vgg16 but lacks features\.29\.bias|lacks features\.29\.bias"
    ):
        weights.into_params(edit(file, remove={"features.29.bias"}), fresh)


def test_tensors_that_the_network_lacks_are_unexpected():
    params = fresh_params()
    del params["head"]["classifier"]["branch_3"]
    file = edit(SEAN, add={"aconv.bias": np.ones(1, np.float32)})
    _, report = weights.into_params(file, params)
    assert set(report.unexpected) == {"classifier.conv2d_list.3.weight", "classifier.conv2d_list.3.bias", "aconv.bias"}


def test_pytorch_loads_written_weights(tmp_path):
    torch = pytest.importorskip("torch")
    import make_fixtures
    from safetensors.torch import load_file

    tensors = weights.from_params(fresh_params())
    weights.write(tmp_path / "out.safetensors", tensors, {"version": 1})
    network = make_fixtures.SEAN()
    network.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, torch.from_numpy(tensors[name]))

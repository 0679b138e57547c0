"""Tests that the input convention of VGG-16 under torchvision's names is recognised and never guessed."""

from pathlib import Path

import numpy as np
import pytest

from sean_jax import port_weights, weights
from sean_jax.errors import UserError
from sean_jax.weights import conventions

FIXTURE = Path(__file__).parent / "fixtures/vgg16_torchvision.safetensors"


def first_layer(known, scale=0.02) -> np.ndarray:
    """64 filters, one of them a published network's after a little training."""
    rng = np.random.default_rng(0)
    layer = (0.3 * rng.standard_normal((64, 3, 3, 3))).astype(np.float32)
    if known is not None:
        layer[known.index] = np.array(known.values) + scale * rng.standard_normal((3, 3, 3))
    return layer


@pytest.mark.parametrize(
    ("known", "convention"), [(conventions._TORCHVISION, "rgb_normalized"), (conventions._CAFFE, "bgr_mean")]
)
def test_values_tell_whatever_the_file_is_called(known, convention):
    for path in ("x.pth", "vgg16-397923af.pth", "vgg16-00b39a1b.pth"):
        for layer in (first_layer(known), first_layer(known, 0).astype(np.float16)):
            assert conventions.recognize(layer, path) == (convention, f"by its first layer, {known.whose} VGG-16")
    with pytest.raises(UserError, match=r"colours of its first layer in reverse order; .*flip\(1\)"):
        conventions.recognize(first_layer(known)[:, ::-1], "x.pth")


def test_the_name_of_a_published_file_tells_where_values_do_not():
    assert conventions.recognize(first_layer(None), "a/vgg16-397923af.pth")[0] == "rgb_normalized"
    assert conventions.recognize(first_layer(None)[:8], "vgg16-00b39a1b-updated.pth")[0] == "bgr_mean"


def test_without_evidence_the_user_is_asked():
    assert conventions.recognize(first_layer(None), "397923af/x.pth")[0] is None
    file = weights.read(FIXTURE)
    with pytest.raises(UserError, match=r"does not tell .*--input_convention=rgb_normalized or --input_con"):
        weights.input_convention(file)
    for given in ("bgr_mean", "rgb_normalized"):
        assert weights.input_convention(weights.read(FIXTURE, given)) == given


def test_what_is_unknown_stays_unknown_when_ported(tmp_path):
    """The ported names would tell bgr_mean."""
    report = port_weights.port(str(FIXTURE), str(tmp_path / "x.npz"))
    assert "input convention unknown (neither names nor values tell; give --input_convention=" in str(report)
    with pytest.raises(UserError, match="give --input_convention"):
        weights.input_convention(weights.read(tmp_path / "x.npz"))
    assert weights.input_convention(weights.read(tmp_path / "x.npz", "bgr_mean")) == "bgr_mean"


def test_what_the_user_says_comes_first_and_a_contradiction_is_told():
    file = weights.read(FIXTURE.with_name("sean.npz"), "rgb_normalized")
    assert weights.metadata(file)["input_convention"] == "rgb_normalized"
    _, report = weights.sean_tensors(file)
    assert "input convention rgb_normalized (as given, but by its names it is bgr_mean)" in report.lines()[0]


def test_the_published_weights(shared):
    tensors = weights.read(shared / "weights/vgg16_imagenet_caffe_float16.safetensors").tensors
    assert conventions.recognize(tensors["conv1_1.weight"], "x.pth")[0] == "bgr_mean"

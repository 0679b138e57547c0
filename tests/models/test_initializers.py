"""Initial values: PyTorch's over pretrained weights, He-normal with calm heads from scratch."""

import builders
import jax
import numpy as np
import pytest

from sean_jax.models.initializers import make_initializers


@pytest.fixture(scope="module")
def pretrained():
    network = builders.deeplab(19, width_multiplier=1 / 4, initialization="pretrained")
    return jax.tree.map(np.asarray, network.init_params(jax.random.key(0)))


def test_over_pretrained_weights_new_layers_start_as_the_authors_do(pretrained):
    """Everything U(±1/√fan_in), biases included; classifier kernels N(0, 0.01)."""
    head = pretrained["head"]
    for layer, fan_in in ((head["fc7"], 9 * 256), (pretrained["trunk"]["conv5_1"], 9 * 128)):
        for values in layer.values():
            bound = fan_in**-0.5
            assert 0.97 * bound < np.abs(values).max() <= bound
            np.testing.assert_allclose(values.std(), bound / 3**0.5, rtol=0.1)
    assert np.abs(head["attention"]["conv"]["kernel"]).max() <= 256**-0.5
    for branch in head["classifier"].values():
        np.testing.assert_allclose(branch["kernel"].std(), 0.01, rtol=0.02)
        assert abs(branch["kernel"].mean()) < 2e-4
        bound = (9 * 256) ** -0.5
        assert 0 < np.abs(branch["bias"]).max() <= bound


def test_from_scratch_kernels_keep_the_mean_square_and_biases_are_zero():
    network = builders.deeplab(19, width_multiplier=1 / 4)
    params = jax.tree.map(np.asarray, network.init_params(jax.random.key(0)))
    for layer, fan_in in ((params["head"]["fc7"], 9 * 256), (params["trunk"]["conv4_2"], 9 * 128)):
        np.testing.assert_allclose(layer["kernel"].std(), (2 / fan_in) ** 0.5, rtol=0.03)
        assert not layer["bias"].any()
    # Logits of standard deviation 1 from features of root mean square 1.5 * 65, nine taps, four branches.
    expected = 1 / (1.5 * 65 * (9 * 256 * 4) ** 0.5)
    for branch in params["head"]["classifier"].values():
        np.testing.assert_allclose(branch["kernel"].std(), expected, rtol=0.03)
        assert not branch["bias"].any()
    attention = params["head"]["attention"]["conv"]["kernel"]
    np.testing.assert_allclose(attention.std(), 0.5 / (65 * 256**0.5), rtol=0.15)


def test_an_unknown_initialization_is_an_error():
    with pytest.raises(ValueError, match="unknown initialization 'zeros'; expected one of pretrained, scratch"):
        make_initializers("zeros", channels=4, branches=2, input_rms=1.0)

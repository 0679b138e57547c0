import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sean_jax.training import losses
from sean_jax.training.losses import attention_mask, consistency_normaliser, count_kept, count_labelled

consistency_loss, segmentation_loss = jax.jit(losses.consistency_loss), jax.jit(losses.segmentation_loss)


def test_segmentation_loss_equals_hand_computed_value():
    logits = jnp.log(jnp.array([[[[0.5, 0.25, 0.25]], [[0.1, 0.8, 0.1]]]]))  # [1, 2, 1, 3]
    labels = jnp.array([[[0], [1]]])
    np.testing.assert_allclose(segmentation_loss(logits, labels), -np.log(0.5) - np.log(0.8), rtol=1e-6)
    assert count_labelled(labels) == 2


def test_ignored_pixels_do_not_affect_loss_or_gradient():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 5)).astype(np.float32))
    labels = np.random.default_rng(1).integers(0, 5, (1, 4, 4))
    ignored = np.array(labels)
    ignored[0, :, 2:] = 255
    kept = segmentation_loss(logits, jnp.asarray(ignored))
    gradient = jax.jit(jax.grad(segmentation_loss))(logits, jnp.asarray(ignored))
    np.testing.assert_allclose(kept, segmentation_loss(logits[:, :, :2], jnp.asarray(labels[:, :, :2])), rtol=1e-6)
    assert np.all(gradient[0, :, 2:] == 0)
    assert np.all(np.abs(gradient[0, :, :2]).sum(-1) > 0)
    assert count_labelled(jnp.asarray(ignored)) == 8


def test_segmentation_loss_is_computed_at_label_size():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32))
    labels = jnp.zeros((1, 16, 24), jnp.uint8)
    big = jax.image.resize(logits, (1, 16, 24, 4), "bilinear")
    np.testing.assert_allclose(segmentation_loss(logits, labels), -jax.nn.log_softmax(big)[..., 0].sum(), rtol=1e-5)


def test_attention_mask_is_strictly_above_the_threshold():
    np.testing.assert_array_equal(attention_mask(jnp.array([[[0.2, 0.3, 0.4]]]), 0.3), [[[0, 0, 1]]])


def test_consistency_loss_equals_hand_computed_value():
    student = jnp.log(jnp.array([[[[0.5, 0.5], [0.9, 0.1]]]]))
    teacher = jnp.log(jnp.array([[[[0.25, 0.75], [0.5, 0.5]]]]))
    both = jnp.ones((1, 1, 2))
    np.testing.assert_allclose(consistency_loss(student, teacher, both), 2 * 0.25**2 + 2 * 0.4**2, rtol=1e-5)
    first = jnp.array([[[1.0, 0.0]]])
    np.testing.assert_allclose(consistency_loss(student, teacher, first), 2 * 0.25**2, rtol=1e-5)


def test_consistency_normaliser_of_paper_and_authors_code():
    mask = jnp.array([[[1.0, 0.0, 1.0]]])
    assert consistency_normaliser(mask, 19, "all_positions") == 3
    assert consistency_normaliser(mask, 19, "kept_positions") == 2 * 19


def test_empty_mask_has_zero_gradient():
    student = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32))
    gradient = jax.jit(jax.grad(consistency_loss))(student, student + 1, jnp.zeros((1, 2, 2)))
    assert np.all(gradient == 0)


@pytest.mark.parametrize("count", [count_labelled, count_kept])
def test_pixels_are_counted_in_int32(count):
    """A float32 sum of ones can be wrong above 2²⁴, depending on the order of additions."""
    program = jax.make_jaxpr(count)(jax.ShapeDtypeStruct((2, 4097, 4097), jnp.float32))
    sums = [equation for equation in program.jaxpr.eqns if equation.primitive.name == "reduce_sum"]
    assert [equation.invars[0].aval.dtype for equation in sums] == [jnp.int32]
    assert [value.aval.dtype for value in program.jaxpr.outvars] == [jnp.float32]

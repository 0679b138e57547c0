"""Tests of superpixels and of the regressions that label them, on small cases with known answers."""

import numpy as np
import pytest

from sean_jax.properties.regression import LabelDistribution, SuperpixelLabels, most_confident
from sean_jax.properties.superpixels import (
    centroids,
    find_superpixels,
    majority_labels,
    neighbours,
    with_neighbours,
)

GRID = np.arange(9).reshape(3, 3).repeat(4, 0).repeat(6, 1)  # nine superpixels of 4 × 6 pixels


def test_superpixels_follow_edges_and_have_no_gaps():
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 25:] = 200
    image[10:] += 50
    found = find_superpixels(image, 20)
    assert found.shape == (32, 64)
    np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
    assert 10 <= found.max() + 1 <= 40
    for number in range(found.max() + 1):
        assert len(np.unique(image[found == number], axis=0)) == 1  # one colour
    np.testing.assert_array_equal(find_superpixels(image, 20), found)


def test_centroids_are_mean_coordinates():
    np.testing.assert_allclose(centroids(GRID)[[0, 5]], [[1.5, 2.5], [5.5, 14.5]])


def test_neighbours_are_beside_above_and_below():
    """On a grid of squares: the superpixels two rows away are the second nearest above and below."""
    found = neighbours(centroids(np.arange(25).reshape(5, 5).repeat(4, 0).repeat(4, 1)))
    assert found[12].tolist() == [11, 13, 7, 2, 17, 22]
    assert found[0].tolist() == [0, 1, 0, 0, 5, 10]  # itself where there is none
    assert neighbours(np.zeros((1, 2))).tolist() == [[0] * 6]


def test_scores_stand_beside_those_of_neighbours():
    scores = np.arange(25.0)[:, None] * [1, 100]
    found = with_neighbours(scores, centroids(np.arange(25).reshape(5, 5).repeat(4, 0).repeat(4, 1)))
    assert found.shape == (25, 14)
    assert found[12].tolist() == [x for i in (12, 11, 13, 7, 2, 17, 22) for x in (i, 100 * i)]


def test_majority_labels_need_more_than_half_of_the_pixels():
    label = np.full(GRID.shape, 255, np.uint8)
    label[:4, :3] = 1  # half of superpixel 0
    label[:4, 6:12] = np.where(np.arange(24).reshape(4, 6) < 13, 2, 0)
    label[8:, 12:] = 3
    label[8, 12:] = 255
    assert majority_labels(GRID.astype(np.uint8), label, 4).tolist() == [255, 2, *[255] * 6, 3]


def test_label_distributions_are_learned_from_shares():
    """Features that are the shares' logarithms, as a softmax regression can represent exactly."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([2, 1, 0.5], 400)
    shares = np.pad(shares, ((0, 0), (0, 1)))  # the last class does not occur
    features = np.log(shares[:, :3] + 1e-3)
    model = LabelDistribution(features[:300], shares[:300])
    found = model.predict(features[300:])
    assert (found.dtype, found.shape) == (np.float32, (100, 4))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found[:, 3] == 0).all()
    error, of_mean = (abs(x - shares[300:]).mean() for x in (found, shares[:300].mean(0)))
    assert error < 0.2 * of_mean


def test_superpixel_labels_are_learned_with_their_confidence():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 2, 3], 600)
    scores = np.eye(4)[labels] + rng.normal(0, 0.3, (600, 4))
    model = SuperpixelLabels(scores[:500], labels[:500], np.arange(500) // 10, 5)
    found, confidence = model.predict(scores[500:])
    right = found == labels[500:]
    assert (found.dtype, confidence.dtype) == (np.uint8, np.float32)
    assert right.mean() > 0.9
    kept = most_confident(confidence, 0.6)
    assert kept.sum() == 60
    assert right[kept].mean() > right[~kept].mean()


def test_the_penalty_is_the_one_that_predicts_other_images_best():
    """Features that say nothing of other images: the strongest penalty leaves the classes' frequencies."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(12), 10)
    scores, labels = rng.normal(size=(12, 12))[images], rng.permutation([0, 1] * 6)[images]
    _, confidence = SuperpixelLabels(scores, labels, images, 2).predict(scores)
    share = max(labels.mean(), 1 - labels.mean())
    assert abs(confidence - share).max() < 0.3  # the weakest penalty would be almost certain
    of_each = SuperpixelLabels(np.eye(2)[labels], labels, images, 2).predict(np.eye(2)[labels])
    assert of_each[1].min() > 0.95  # features that say everything


def test_one_class_is_predicted_everywhere():
    found, confidence = SuperpixelLabels(np.zeros((3, 2)), np.array([2, 2, 2]), np.arange(3), 4).predict(
        np.ones((2, 2))
    )
    assert found.tolist() == [2, 2]
    assert confidence.tolist() == [1, 1]


@pytest.mark.parametrize(("share", "kept"), [(0.0, []), (0.5, [1, 2]), (1.0, [0, 1, 2, 3])])
def test_most_confident_keeps_a_share(share, kept):
    assert np.flatnonzero(most_confident(np.array([0.2, 0.9, 0.5, 0.5]), share)).tolist() == kept

"""Multinomial logistic regressions that are fitted on source images and applied to target images."""

import warnings
from typing import Any

import numpy as np

_ITERATIONS = 100  # more change the predictions by little


class LabelDistribution:
    """From features of an image to the shares of the classes in it."""

    def __init__(self, features: np.ndarray, shares: np.ndarray, penalty: float = 5.0):
        """Fits the regression.

        Args:
          features: of the source images, ``[images, f]``; they are standardised.
          shares: of the classes among the labelled pixels of each image, ``[images, classes]``.
          penalty: see :func:`_fit`. The default is strong: features of the target lie off those of the source, and a
            regression that fits the source closely extrapolates badly (on minicity, the chi-squared error on the target
            was 0.20 with it, 0.25 with a tenth and 0.37 with a thousandth; the source's mean had 0.18).
        """
        # A row for each class in each image, weighted by its share, makes the loss a cross-entropy with the shares.
        image, label = np.nonzero(shares)
        self._classes = shares.shape[1]
        self._model = _fit(features[image], label, shares[image, label], penalty, standardise=True)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Float32 ``[images, classes]``; rows sum to 1."""
        return _probabilities(self._model, features, self._classes)


class SuperpixelLabels:
    """From the scores of a superpixel and its neighbours to its class."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray, num_classes: int, penalty: float = 0.02):
        """Fits the classifier.

        Args:
          scores: of source superpixels, ``[superpixels, f]``. They should be probabilities, which are bounded in the
            target too; they are not standardised, since that would magnify those of rare classes. (On minicity, 79 % of
            the kept labels are right with probabilities, and at most half were with standardised logits.)
          labels: their classes, ``[superpixels]``.
          num_classes: number of classes, of which some may not occur.
          penalty: see :func:`_fit`.
        """
        self._classes = num_classes
        self._model = _fit(scores, labels, np.ones(len(labels)), penalty, standardise=False)

    def predict(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class, uint8, and its probability, float32, of each superpixel."""
        probabilities = _probabilities(self._model, scores, self._classes)
        return probabilities.argmax(1).astype(np.uint8), probabilities.max(1)


def most_confident(confidences: np.ndarray, share: float) -> np.ndarray:
    """Marks the largest ``share`` of confidences, bool; of equal ones the first."""
    kept = np.zeros(len(confidences), bool)
    kept[np.argsort(-confidences, kind="stable")[: round(share * len(confidences))]] = True
    return kept


def _fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: float, *, standardise: bool) -> Any:
    """A regression that minimises the weighted mean loss plus ``penalty`` / 2 times the coefficients' squared norm."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(labels)) == 1:  # which scikit-learn's regression refuses
        regression = DummyClassifier()
    else:
        regression = LogisticRegression(C=1 / (penalty * weights.sum()), max_iter=_ITERATIONS)
    scaling = StandardScaler() if standardise else "passthrough"
    model = Pipeline([("scaling", scaling), ("regression", regression)])
    # On one thread, since results would depend on the number of threads.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # of many classes for few examples, and of the limit of iterations
        return model.fit(np.float64(features), labels, regression__sample_weight=weights)


def _probabilities(model: Any, features: np.ndarray, num_classes: int) -> np.ndarray:
    found = np.zeros((len(features), num_classes), np.float32)
    found[:, model.classes_] = model.predict_proba(np.float64(features))
    return found

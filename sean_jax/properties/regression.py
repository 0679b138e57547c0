"""Multinomial logistic regressions that are fitted on source images and applied to target images.

The strength of their penalty is chosen by cross-validation over source images. That they read probabilities of
superpixels, and not logits, was decided with labels of minicity's target; nothing else was.
"""

import warnings
from typing import Any

import numpy as np

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FOLDS = 3
_ITERATIONS = 100  # more change the predictions by little


class LabelDistribution:
    """From features of an image to the shares of the classes in it."""

    def __init__(self, features: np.ndarray, shares: np.ndarray):
        """Fits the regression.

        Args:
          features: of the source images, ``[images, f]``; they are standardised.
          shares: of the classes among the labelled pixels of each image, ``[images, classes]``.
        """
        # A row for each class in each image, weighted by its share, makes the loss a cross-entropy with the shares.
        image, label = np.nonzero(shares)
        self._classes = shares.shape[1]
        self._model = _fit(features[image], label, shares[image, label], image, self._classes, standardise=True)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Float32 ``[images, classes]``; rows sum to 1."""
        return _probabilities(self._model, features, self._classes)


class SuperpixelLabels:
    """From the scores of a superpixel and its neighbours to its class."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray, images: np.ndarray, num_classes: int):
        """Fits the classifier.

        Args:
          scores: of source superpixels, ``[superpixels, f]``: probabilities, which are bounded in the target too. They
            are not standardised, since that would magnify those of rare classes.
          labels: their classes, ``[superpixels]``.
          images: number of the image that each belongs to, ``[superpixels]``.
          num_classes: number of classes, of which some may not occur.
        """
        self._classes = num_classes
        self._model = _fit(scores, labels, np.ones(len(labels)), images, num_classes, standardise=False)

    def predict(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class, uint8, and its probability, float32, of each superpixel."""
        probabilities = _probabilities(self._model, scores, self._classes)
        return probabilities.argmax(1).astype(np.uint8), probabilities.max(1)


def most_confident(confidences: np.ndarray, share: float) -> np.ndarray:
    """Marks the largest ``share`` of confidences, bool; of equal ones the first."""
    kept = np.zeros(len(confidences), bool)
    kept[np.argsort(-confidences, kind="stable")[: round(share * len(confidences))]] = True
    return kept


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    images: np.ndarray,
    num_classes: int,
    *,
    standardise: bool,
) -> Any:
    """Fits a regression with the penalty whose held-out loss is smallest; the folds divide the images."""
    folds = np.unique(images, return_inverse=True)[1] % _FOLDS

    def held_out_loss(penalty: float) -> float:
        total = 0.0
        for fold in range(_FOLDS):
            inside, held_out = folds != fold, folds == fold
            if not (inside.any() and held_out.any()):
                continue
            model = _regression(features[inside], labels[inside], weights[inside], penalty, standardise)
            predicted = _probabilities(model, features[held_out], num_classes)
            of_label = predicted[np.arange(len(predicted)), labels[held_out]]
            total -= float(np.sum(weights[held_out] * np.log(of_label.clip(1e-6))))
        return total

    return _regression(features, labels, weights, min(_PENALTIES, key=held_out_loss), standardise)


def _regression(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: float, standardise: bool
) -> Any:
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

"""Weights of reviews, fitted to what people said: the log odds that a review like this one is right.

Of independent voters, weights w = log(p / (1 - p)) make the best majority (Nitzan & Paroush 1982), p being the chance
that a voter is right. Here p is fitted by logistic regression, with an L2 penalty, on the review's layer, role and
stated confidence.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from evaluators.errors import RunError
from evaluators.statistics.runs import Sample
from evaluators.values import Failure, Layer, Review

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

LEAST_REVIEWS = 20
"""Of a role, for it to have a weight of its own."""
FITTED = {"fitted-all": "confidence-all", "fitted-last": "confidence-last"}
"""Aggregations with fitted weights -> those that they become when weights stand where stated confidences stood."""


class Weights:
    """A fitted model. Fit it on one part of the samples, apply it to another."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        """Fit on the reviews that name a winner, of samples where people do.

        Raises:
            RunError: nothing tells reviews apart, or all of them are right, or none.
        """
        reviews = [(review, sample.human) for sample in samples for review in _decided(sample)]
        right = [(1 if review.scores[0] > review.scores[1] else 2) == human for review, human in reviews]
        if len(set(right)) < 2:
            raise RunError(f"of {len(right):,} reviews that name a winner, {'all' if any(right) else 'none'} are right")
        stated = [review.confidence for review, _ in reviews if review.confidence is not None]
        self._mean, self._deviation = (fmean(stated), pstdev(stated)) if stated else (0.0, 0.0)
        count = Counter(review.role for review, _ in reviews)
        self._roles = {role for role, number in count.items() if number >= LEAST_REVIEWS}
        features = [self._features(review) for review, _ in reviews]
        if all(row == features[0] for row in features):
            raise RunError("all reviews are of one layer and one role and state the same confidence, or none")
        self.reviews = len(reviews)
        self.right = sum(right) / len(right)
        self._model = _fit(features, right)

    def _features(self, review: Review) -> dict[str, float]:
        """One of each layer; one of each role with enough reviews; the confidence in standard deviations, 0 if none."""
        found = {f"layer {review.layer}": 1.0}
        if review.role in self._roles:
            found[f"role {review.role}"] = 1.0
        if self._deviation:
            stated = self._mean if review.confidence is None else review.confidence
            found["confidence"] = (stated - self._mean) / self._deviation
        return found

    @property
    def log_odds(self) -> dict[str, float]:
        """What each feature adds: of confidence, per standard deviation; `intercept` is there for every review."""
        names, regression = self._model[0].get_feature_names_out(), self._model[-1]
        added = dict(zip(map(str, names), map(float, regression.coef_[0]), strict=True))
        return {"intercept": float(regression.intercept_[0]), **added}

    @property
    def confidence(self) -> Mapping[str, float] | None:
        """Mean and standard deviation of the stated confidences; None where they tell nothing."""
        return {"mean": self._mean, "deviation": self._deviation} if self._deviation else None

    def apply(self, sample: Sample) -> Sample:
        """The sample with weights where its reviews stated confidences. A review no better than a coin weighs 0."""
        reviews = [item for layer in sample.layers for item in layer if isinstance(item, Review)]
        if not reviews:
            return sample
        odds = iter(self._model.decision_function([self._features(review) for review in reviews]).tolist())
        return dataclasses.replace(sample, layers=tuple(_weighted(layer, odds) for layer in sample.layers))


def _decided(sample: Sample) -> Iterator[Review]:
    if sample.human not in (1, 2):
        return
    for layer in sample.layers:
        for item in layer:
            if isinstance(item, Review) and item.scores[0] != item.scores[1]:
                yield item


def _weighted(layer: Layer, odds: Iterator[float]) -> list[Review | Failure]:
    return [
        dataclasses.replace(item, confidence=max(0.0, next(odds))) if isinstance(item, Review) else item
        for item in layer
    ]


def _fit(features: Sequence[Mapping[str, Any]], right: Sequence[bool]) -> Pipeline:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(DictVectorizer(), LogisticRegression(C=1.0, tol=1e-8, max_iter=1000)).fit(features, right)

"""From reviews to a verdict. Failures are counted and never enter a mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from evaluators.values import Failure, Layer, Review, Verdict


def _score(review: Review) -> tuple[float, ...]:
    return review.scores


def _vote(review: Review) -> tuple[float, ...]:
    """1 for the response that the review prefers, a half for each in a tie."""
    first, second = review.scores
    share = 0.5 + 0.5 * ((first > second) - (first < second))
    return (share, 1 - share)


AGGREGATIONS: dict[str, tuple[str, Callable[[Review], tuple[float, ...]], bool]] = {
    "mean-all": ("mean of the scores of all layers (the authors' code)", _score, False),
    "mean-last": ("mean of the last layer's scores", _score, False),
    "vote-all": ("share of the votes of all reviews", _vote, False),
    "vote-last": ("share of the votes of the last layer's reviews", _vote, False),
    "confidence-all": ("mean of all scores, weighted by the confidence that reviewers state", _score, True),
    "confidence-last": ("mean of the last layer's scores, weighted by confidence", _score, True),
}
"""Name -> (what it is, what a review contributes, whether it is weighted by confidence)."""


def aggregate(layers: Sequence[Layer], aggregation: str, tie_margin: float) -> Verdict:
    """The verdict of all layers; of the last one where the aggregation says so.

    Both answer orders weigh the same: the mean is taken over each order's reviews and then over the orders. Without a
    failure that is the plain mean; with one, a position bias still cancels. Where it could not, because no review of an
    order was scored, there is no verdict.
    """
    _, contribution, weighted = AGGREGATIONS[aggregation]
    used = [item for layer in (layers[-1:] if aggregation.endswith("-last") else layers) for item in layer]
    reviews = [item for item in used if isinstance(item, Review)]
    unscored = len(used) - len(reviews)
    if weighted:
        sure = [review for review in reviews if review.confidence is not None]
        unscored += len(reviews) - len(sure)
        reviews = sure if any(review.confidence for review in sure) else []
    if not reviews:
        return Verdict(None, None, None, 0, unscored, _why(used))

    scores = []
    for position in range(len(reviews[0].scores)):
        means = []
        for order in sorted({item.order for item in used}):
            own = [review for review in reviews if review.order == order]
            weights = [(review.confidence or 0.0) if weighted else 1.0 for review in own]
            if not sum(weights):
                return Verdict(None, None, None, 0, unscored, _one_order(order))
            terms = (weight * contribution(review)[position] for weight, review in zip(weights, own, strict=True))
            means.append(sum(terms) / sum(weights))
        scores.append(fmean(means))
    if len(scores) == 1:
        return Verdict(None, None, tuple(scores), len(reviews), unscored)
    margin = scores[0] - scores[1]
    # Means of tenths that are equal on paper differ in the last bit.
    winner = 0 if abs(margin) <= tie_margin + 1e-9 else (1 if margin > 0 else 2)
    return Verdict(winner, margin, tuple(scores), len(reviews), unscored)


def _why(used: Sequence[Review | Failure]) -> str:
    reasons = [item.reason for item in used if isinstance(item, Failure)]
    if not reasons:
        return "no review states a confidence above 0"
    return f"no review was scored; the first: {reasons[0]}"


def _one_order(order: str) -> str:
    return (
        f"no review that was shown response {order[0]} first counts; one order alone would carry the judge's "
        "position bias"
    )

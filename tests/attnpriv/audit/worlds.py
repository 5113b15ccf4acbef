"""Models that overfit, made in closed form: many of them in no time."""

from __future__ import annotations

import numpy as np

from attnpriv.audit.leakage.likelihood import Confidences


class World:
    """Models that correct a public one, each fitted to half of the records with noisy labels.

    The corrections are ridge regressions in closed form, so that many of them take no time. How
    hard a record is for the public model shows in the confidence more than whether it was fitted:
    what a threshold on the loss cannot tell apart, and attacks with shadow models can.
    """

    def __init__(self, models, records=400, width=200, ridge=100.0, seed=0):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(records, width))
        public = rng.normal(0, 2, records)
        labels = np.where(public + rng.logistic(size=records) > 0, 1.0, -1.0)
        self.members, *inside = rng.random((models + 1, records)) < 0.5
        kernel = features @ features.T

        def log_odds(fitted):
            of_fitted = kernel[np.ix_(fitted, fitted)] + ridge * np.eye(fitted.sum())
            fit = kernel[:, fitted] @ np.linalg.solve(of_fitted, labels[fitted])
            return labels * (public + fit)

        shadows = np.stack([log_odds(each) for each in inside])
        self.seen = Confidences(log_odds(self.members), shadows, np.stack(inside))

    def split(self, scores):
        return scores[self.members], scores[~self.members]

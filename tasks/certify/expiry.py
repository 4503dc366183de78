"""Expires a policy when audits show that its precision has fallen below the promise.

An e-process: a bet against "at least T of the accepted labels are correct" that loses on average while that is true, so
its wealth ever reaches 1/delta with chance at most delta (J. Ville, 1939), however many batches are audited and
whenever one looks. After an audited batch b with labels of weight a_i and error w_i, each bet lambda multiplies by

    E_b(lambda) = prod_i (1 + lambda (a_i w_i - (1 - T))).

Wealth is the mean over a grid of lambda (I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by
betting, 2024). It is also averaged over when to begin betting, with weights v_s = 1/(s (s+1)) for beginning at batch s
(the mixture e-detector of J. Shin, A. Ramdas and A. Rinaldo, 2023, with weights that sum to one): a bet that began long
ago has lost its stake to many good batches and would take as long to notice a fall. What has not begun is kept as cash:

    M_b = 1/(b+1) + mean over lambda of S_b(lambda),   S_b = (S_{b-1} + v_b) E_b.

Validity with a stratified audit: with a_i = (N_h / N) (m / m_h), the expectation of E_b is at most
prod_h (1 + lambda (a_h p_h - (1-T)))^{m_h} (draws without replacement within a stratum are less spread than with, W.
Hoeffding 1963, Theorem 4), and by concavity of the logarithm that is at most (1 + lambda (p - (1-T)))^m <= 1 where
p = sum_h N_h p_h / N <= 1 - T. So wealth may be looked at after each batch, not within one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.errors import UserError
from tasks.certify.bounds import Bools, Floats

BETS: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
"""The grid, in parts of the greatest bet 1/(1 - T), which a single correct label would ruin."""


@dataclass(frozen=True)
class Monitor:
    """Wealth of the bets against a policy's promise; plain values, so that it can be stored between batches."""

    precision: float
    """T, below 1."""
    delta: float
    batches: int = 0
    stakes: tuple[float, ...] = (0.0,) * len(BETS)
    """S of each bet."""
    peak: float = 1.0
    """Greatest wealth so far."""

    @property
    def wealth(self) -> float:
        """M after the last batch."""
        return 1 / (self.batches + 1) + sum(self.stakes) / len(self.stakes)

    @property
    def expired(self) -> bool:
        """Whether wealth has ever reached 1/delta; a policy that has expired stays so."""
        return self.peak >= 1 / self.delta

    def after(self, wrong: Bools, inclusion: Floats, labels: int) -> "Monitor":
        """Bet on one audited batch.

        Args:
            wrong: (m,) verdicts of the audited labels.
            inclusion: (m,) inclusion probability m_h / N_h of each.
            labels: Accepted labels of the batch, N.

        Returns:
            The monitor after it; unchanged by a batch without audited labels.
        """
        if not len(wrong):
            return self
        weights = len(wrong) / (labels * inclusion)
        limit = 1 - self.precision
        bets = BETS / limit
        # Logs, so that hundreds of factors neither overflow nor vanish on the way.
        growth = np.log1p(bets[:, None] * (weights * wrong - limit)[None, :]).sum(axis=1)
        batch = self.batches + 1
        stakes = (np.array(self.stakes) + 1 / (batch * (batch + 1))) * np.exp(np.minimum(growth, 400.0))
        after = Monitor(self.precision, self.delta, batch, tuple(np.minimum(stakes, 1e100).tolist()), self.peak)
        return Monitor(self.precision, self.delta, batch, after.stakes, max(self.peak, after.wealth))

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that JSON can say."""
        return {
            "precision": self.precision,
            "delta": self.delta,
            "batches": self.batches,
            "stakes": list(self.stakes),
            "peak": self.peak,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Monitor":
        """Read what `to_dict` gave, also after a way through JSON.

        Raises:
            UserError: Keys are missing or unknown, or there are not as many stakes as bets.
        """
        try:
            monitor = Monitor(**{**values, "stakes": tuple(float(stake) for stake in values["stakes"])})
        except (KeyError, TypeError, ValueError):
            monitor = None
        if monitor is None or len(monitor.stakes) != len(BETS):
            raise UserError("the policy's record of audits is damaged; restore it, or certify again")
        return monitor

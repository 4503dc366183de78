"""Keeps the calibrator by which certification labels were drawn, so that later verdicts cannot move it.

A calibrator fitted anew after certification labels were seen could depend on them through what was reviewed next; the
thresholds of a declared ladder would mean other labels as well.
"""

from typing import Any, Final

from pydantic import Field, ValidationError

from schemas.campaign import Strict
from schemas.errors import ObjectMissingError, StoreError
from tasks.contract.fit import Fit, calibrator_fingerprint
from tasks.statistics.calibrator import Calibrator
from tasks.store.store import Store

_REMEDY: Final = "restore it, or draw a new certification sample: vouch plan-reviews CAMPAIGN --stage certify --fresh"


class KeptCalibrator(Strict):
    """runs/<run>/calibrators/<fingerprint>.json."""

    calibrator: dict[str, Any] = Field(description="As tasks.statistics.calibrator.Calibrator.to_dict gives it.")
    labels: int = Field(ge=0, description="Reviewed labels that it was fitted to.")
    brier: float = Field(ge=0, description="Held-out mean of (p - correct)^2.")
    brier_of_rate: float = Field(ge=0, description="The same of the constant share of correct labels.")


def keep_calibrator(workspace: Store, run: str, fit: Fit) -> str:
    """Keep a fitted calibrator, and give its fingerprint."""
    kept = KeptCalibrator(
        calibrator=fit.calibrator.to_dict(),
        labels=fit.fitted.labels,
        brier=fit.fitted.brier,
        brier_of_rate=fit.fitted.brier_of_rate,
    )
    workspace.put(_key(run, fit.fingerprint), kept.model_dump_json(indent=1).encode() + b"\n", if_absent=True)
    return fit.fingerprint


def read_calibrator(workspace: Store, run: str, fingerprint: str) -> tuple[Calibrator, KeptCalibrator]:
    """Read a kept calibrator.

    Raises:
        StoreError: It is missing, damaged, or not the one that was kept.
    """
    key = _key(run, fingerprint)
    try:
        kept = KeptCalibrator.model_validate_json(workspace.get(key).data)
    except ObjectMissingError:
        raise StoreError(f"{workspace.uri}/{key} is missing; {_REMEDY}") from None
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; {_REMEDY}") from None
    calibrator = Calibrator.from_dict(kept.calibrator)
    if calibrator_fingerprint(calibrator) != fingerprint:
        raise StoreError(f"{workspace.uri}/{key} is not the calibrator that was kept; {_REMEDY}")
    return calibrator, kept


def _key(run: str, fingerprint: str) -> str:
    return f"runs/{run}/calibrators/{fingerprint}.json"

"""Statistics of the contract: calibration, certified thresholds, sampling, audits and recall, on plain arrays."""

"""Statistics of certification on plain arrays: bounds, calibration, tests, sampling, audits, recall."""

"""The report: a run's figures, and the page that shows them."""

"""How the models are made fast: which speed-ups are on, and what compiles them."""

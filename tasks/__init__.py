"""The steps of the work, each importable and testable alone, none aware of an orchestrator."""

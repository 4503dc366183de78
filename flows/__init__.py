"""Order and orchestration: the flow, the command line."""

from flows.environment import prepare_environment

# Here, because prefect reads its settings when it is imported, and a flow may be imported by anybody.
prepare_environment()

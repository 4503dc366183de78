"""The house decorator: one place that decides names, tags, retries and timeouts of Prefect tasks."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from schemas.campaign import RunConfig
from schemas.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")


def house_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Vouch task.

    Nothing is cached by Prefect, since the workspace's own markers say what is done, and parameters are neither
    stored nor sent; retries are set per run by `with_retries`.

    Args:
        name: Shown in Prefect.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(function, name=name, tags={"vouch"}, persist_result=False, cache_policy=NO_CACHE)

    return decorate


def with_retries(work: Task[P, R], config: RunConfig, run_name: str) -> Task[P, R]:
    """Set how often and how long a task is tried: delays double from config.retry_delay_s.

    A UserError is not tried again, since only the user can mend it.
    """
    return work.with_options(
        task_run_name=run_name,
        retries=config.retries,
        retry_delay_seconds=exponential_backoff(config.retry_delay_s) if config.retry_delay_s else 0,
        retry_condition_fn=_may_pass,
        timeout_seconds=config.shard_timeout_s,
    )


def _may_pass(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return not isinstance(error, UserError)

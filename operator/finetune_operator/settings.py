"""The operator's settings: the only module that reads the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.merge import MergeError, check_pod_template

PREFIX: Final = "FINETUNE_OPERATOR_"
_NESTED: Final = "__"
_WRITE_SECONDS: Final = 4.0
_LINK: Final = re.compile(r"[a-z]+://\S+:(\d+)")


class SettingsError(Exception):
    """An environment variable has a value that makes no sense; the message names each of them."""


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _listed(value: Any) -> Any:
    """A list as JSON (`["a", "b"]`) or with commas (`a,b`)."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _is_link(value: Any) -> bool:
    """Whether Kubernetes set the variable: for a Service of that name, as NAME_PORT=tcp://10.0.0.1:8080."""
    return isinstance(value, str) and _LINK.fullmatch(value) is not None


class Settings(BaseSettings):
    """Everything that can be set about an operator process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=_NESTED,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        env_ignore_empty=True,
    )

    namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Namespaces to watch (a,b or ["a", "b"]); all of them when empty."""
    workers: int = Field(default=16, ge=1, le=256)
    """Jobs that are reconciled at the same time."""
    resync_seconds: float = Field(default=300, ge=5)
    """Time between complete lists, which find what a watch has lost."""
    scrape_seconds: float = Field(default=15, ge=0.5)
    """Time between looks at the progress of a running job."""
    install_templates: bool = True
    """Whether built-in ClusterFineTuneTemplates that are missing are created at start."""
    lease_name: str = Field(default="finetune-operator", min_length=1)
    """Name of the Lease by which one of several replicas leads."""
    lease_namespace: str | None = None
    """Namespace of the Lease; the operator's own without it."""
    lease_duration_seconds: float = Field(default=15, ge=3)
    """A replica takes over from one that has not renewed for this long."""
    lease_deadline_seconds: float | None = Field(default=None, gt=0)
    """A leader that cannot renew stops writing after this long; two thirds of the duration without it."""
    lease_renew_seconds: float = Field(default=2, gt=0)
    """Time between renewals, and between attempts to take over."""
    identity: str | None = None
    """Name of this replica in the Lease; the host's name without it."""
    metrics_port: int = Field(default=8080, ge=0, le=65535)
    """Port of /metrics; 0 serves none."""
    health_port: int = Field(default=8081, ge=0, le=65535)
    """Port of /healthz and /readyz; 0 serves none."""
    drain_seconds: float = Field(default=5, ge=0)
    """Time that reconciles under way have to finish when the operator stops."""
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = LogFormat.JSON
    """json or console."""
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = LogLevel.INFO
    """debug, info, warning or error."""
    plan: PlanSettings = Field(default_factory=PlanSettings)
    """What the planner is told."""

    @model_validator(mode="before")
    @classmethod
    def _without_links(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if not _is_link(value)}

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if not self.lease_renew_seconds < self.lease_deadline < self.lease_duration_seconds:
            raise ValueError(
                f"{PREFIX}LEASE_*: the lease must be renewed before its deadline, and the deadline must be before its "
                "duration; they are "
                f"{self.lease_renew_seconds:g}, {self.lease_deadline:g} and {self.lease_duration_seconds:g} seconds"
            )
        return self

    @model_validator(mode="after")
    def _has_pod_templates(self) -> Self:
        for name in ("pod_template", "enforced_pod_template"):
            try:
                check_pod_template(getattr(self.plan, name))
            except MergeError as problem:
                raise ValueError(f"{_variable('plan', name)}: {problem}") from problem
        return self

    @property
    def lease_deadline(self) -> float:
        return self.lease_deadline_seconds or self.lease_duration_seconds * 2 / 3

    @property
    def longest_write_seconds(self) -> float:
        """A write that was under way when the lease ran out has ended before another replica takes over."""
        return min(_WRITE_SECONDS, 0.8 * (self.lease_duration_seconds - self.lease_deadline))


def load() -> Settings:
    """The settings of this process. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(problem) for problem in error.errors())) from error
    except ValueError as error:  # a value that should be JSON and is not
        raise SettingsError(str(error)) from error


def variables() -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every environment variable."""
    for name, field in Settings.model_fields.items():
        if name != "plan":
            yield _variable(name), _shown(field.get_default()), field.description or ""
    for name, field in PlanSettings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        yield _variable("plan", name), _shown(default), field.description or ""


def _variable(*path: str) -> str:
    return PREFIX + _NESTED.join(path).upper()


def _shown(default: object) -> str:
    if default in (None, (), {}):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _problem(error: Any) -> str:
    where = [str(part) for part in error["loc"]]
    message = error["msg"].removeprefix("Value error, ")
    if not where:  # of several variables together: the message names them
        return str(message)
    return f"{_variable(*where)}: {message} (it is {error['input']!r})"

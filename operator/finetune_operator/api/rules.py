"""Rules that span more than a JSON Schema keyword: each once, for the API server (CEL) and for Python.

The API server refuses a manifest by the CEL rule; `finetune run` and `finetune plan` refuse it offline by
the predicate. The message is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""Of a FineTuneJob: a DNS-1035 label."""
LONGEST_NAME: Final = 63
_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = f"{_LABEL}([.]{_LABEL})*"
LONGEST_OBJECT_NAME: Final = 253
"""Of most objects: a DNS-1123 subdomain."""
USUAL_GPUS_PER_NODE: Final = 8
DURATION_PATTERN: Final = "^[1-9][0-9]{0,6}(s|m|h)$"


@dataclass(frozen=True)
class Rule:
    """A rule, what the user reads when it does not hold, and the same rule in Python."""

    cel: str
    message: str
    holds: Callable[[Any], bool]

    def as_schema(self) -> dict[str, str]:
        """The rule as an entry of x-kubernetes-validations."""
        return {"rule": self.cel, "message": self.message}

    def check(self, value: Any) -> Any:
        """The value, or ValueError with the message: a pydantic validator."""
        if not self.holds(value):
            raise ValueError(self.message)
        return value


def object_name_rule(kind: str, example: str) -> Rule:
    """A name that an object of Kubernetes can have: no part of a path, no query."""
    return _pattern_rule(
        f"^{_SUBDOMAIN}$",
        f"must be the name of a {kind} (lower-case letters, digits, '-' and '.', at most {LONGEST_OBJECT_NAME} "
        f"characters), for example {example}",
    )


def uri_rules(schemes: tuple[str, ...], example: str) -> tuple[Rule, ...]:
    """A URI with one of these schemes, which leads to nowhere but where it says."""
    listed = ", ".join(f"{scheme}://" for scheme in schemes)
    message = f"must be a URI that starts with one of {listed}, for example {example}"
    return (_pattern_rule(f"^({'|'.join(schemes)})://[^[:space:]]+$", message), _NO_PARENT, _CLAIM_URI)


def _pattern_rule(pattern: str, message: str) -> Rule:
    """A text that the whole pattern matches. The pattern is read by RE2 and by Python alike."""
    compiled = _compiled(pattern)
    return Rule(
        cel=f"self.matches('{pattern}')",
        message=message,
        holds=lambda text: compiled.search(text) is not None,
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    """In Python `$` also matches before a newline at the end, and there are no POSIX classes."""
    return re.compile(pattern.replace("[^[:space:]]", r"\S").replace("$", r"\Z"))


_PARENT_PATTERN: Final = "/[.][.](/|$)"
_NO_PARENT: Final = Rule(
    cel=f"!self.matches('{_PARENT_PATTERN}')",
    message="must not hold '..' as a part of its path: write the path that is meant",
    holds=lambda uri: _compiled(_PARENT_PATTERN).search(uri) is None,
)
_CLAIM_PATTERN: Final = f"^pvc://{_SUBDOMAIN}(/.*)?$"
_CLAIM_URI: Final = Rule(
    cel=f"!self.startsWith('pvc://') || self.matches('{_CLAIM_PATTERN}')",
    message="must name a PersistentVolumeClaim after pvc:// (lower-case letters, digits, '-' and '.'), for example "
    "pvc://team-data/models",
    holds=lambda uri: not uri.startswith("pvc://") or _compiled(_CLAIM_PATTERN).search(uri) is not None,
)
JOB_NAME: Final = _pattern_rule(
    NAME_PATTERN,
    "must be the name of a FineTuneJob of this namespace (a lower-case letter, then lower-case letters, digits and "
    "'-'), for example support-bot",
)
MOST_STEPS: Final = 1_000_000_000
EVERY: Final = Rule(
    cel=f"type(self) == int ? self >= 1 && self <= {MOST_STEPS} : self.matches('{DURATION_PATTERN}')",
    message="must be a number of steps (500) or a time such as 90s, 15m or 1h",
    holds=lambda every: (
        every is None
        or (
            1 <= every <= MOST_STEPS
            if isinstance(every, int)
            else _compiled(DURATION_PATTERN).search(every) is not None
        )
    ),
)
MOST_HELD_OUT: Final = 0.5
HELD_OUT: Final = Rule(
    cel=f"self >= 0.0 && self <= {MOST_HELD_OUT}",
    message=f"must be between 0 (train on every row) and {MOST_HELD_OUT} (hold out half of them)",
    holds=lambda fraction: fraction is None or 0 <= fraction <= MOST_HELD_OUT,
)
NAME: Final = Rule(
    cel=f"self.metadata.name.size() <= {LONGEST_NAME} && self.metadata.name.matches('{NAME_PATTERN}')",
    message="metadata.name must be at most 63 characters, begin with a lower-case letter and hold only lower-case "
    "letters, digits and '-': pods and Services are named after it",
    holds=lambda job: len(job.metadata.name) <= LONGEST_NAME and JOB_NAME.holds(job.metadata.name),
)
GPUS: Final = Rule(
    cel="has(self.gpusPerNode) ? self.gpus % self.gpusPerNode == 0 : self.gpus <= 8 || self.gpus % 8 == 0",
    message="gpus must be a multiple of gpusPerNode (which is 8 when not given and gpus is above 8), so that every "
    "pod gets the same number",
    holds=lambda spec: spec.gpus % (spec.gpus_per_node or min(spec.gpus, USUAL_GPUS_PER_NODE) or 1) == 0,
)
# Below their own objects, not at spec: the API server goes through every rule of spec at each write of a status.
WORKSPACE: Final = Rule(
    cel="has(self.claim) != has(self.size)",
    message="workspace takes exactly one of claim (an existing PersistentVolumeClaim) and size (to create one)",
    holds=lambda workspace: (workspace.claim is not None) != (workspace.size is not None),
)
STORAGE_CLASS: Final = Rule(
    cel="!has(self.storageClassName) || has(self.size)",
    message="workspace.storageClassName only applies to a claim that is created: give workspace.size with it",
    holds=lambda workspace: workspace.storage_class_name is None or workspace.size is not None,
)
RESUME_FROM: Final = Rule(
    cel="has(self.job) != has(self.uri)",
    message="checkpoints.resumeFrom takes exactly one of job (a FineTuneJob of this namespace) and uri (a folder of "
    "checkpoints)",
    holds=lambda origin: (origin.job is not None) != (origin.uri is not None),
)

FIXED_ONCE_STARTED: Final = (
    *("model", "template", "datasets", "gpus", "gpusPerNode", "training", "data"),
    *("output", "checkpoints", "workspace", "podTemplate"),
)


def immutability() -> dict[str, str]:
    """CEL rule: these fields of spec stay as they are once status.startTime is set; who changes one reads its name.

    One rule for all of them, and the whole of spec compared first: each field that CEL looks at costs the API server
    a copy of the schema around it, and every write of a status is checked, too.
    """
    same = " && ".join(f"({_is_same(field)})" for field in FIXED_ONCE_STARTED)
    *fields, last = FIXED_ONCE_STARTED
    changed = "".join(f"!({_is_same(field)}) ? '{field}' : " for field in fields) + f"'{last}'"
    words = (
        " cannot change once the job has started; only spec.runPolicy and spec.samples can. "
        "Apply the change as a new FineTuneJob under another name"
    )
    return {
        "rule": f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec == oldSelf.spec || ({same})",
        "message": f"spec{words}",
        "messageExpression": f"'spec.' + ({changed}) + '{words}'",
    }


def _is_same(field: str) -> str:
    both, here = f"has(self.spec.{field}) == has(oldSelf.spec.{field})", f"has(self.spec.{field})"
    return f"{both} && (!{here} || self.spec.{field} == oldSelf.spec.{field})"

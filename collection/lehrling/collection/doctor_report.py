"""What `doctor` found: one finding per check, each with what was measured and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warn", "fail", "unknown"]
Value = str | int | float | bool | None
BAD_FIRST: tuple[Verdict, ...] = ("fail", "warn", "unknown", "ok")


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        verdict: `fail` loses data or cannot work, `warn` can under load, `unknown` could not be measured here.
        measured: what was found, in words and figures for people.
        remedy: what to do, a sentence; empty where nothing is to be done.
        values: the same figures for programs, units in their names.
    """

    name: str
    verdict: Verdict
    measured: str
    remedy: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON data."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "measured": self.measured,
            "remedy": self.remedy,
            "values": dict(self.values),
        }


@dataclass(frozen=True)
class DoctorReport:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict; `ok` only where nothing is wrong or unknown."""
        found = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in BAD_FIRST if verdict in found), "ok")

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return self.verdict == "fail"

    def finding(self, name: str) -> Finding:
        """Return a finding by name.

        Raises:
            KeyError: no check of that name was made.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json` and for an episode's provenance."""
        return {"verdict": self.verdict, "findings": [finding.to_json() for finding in self.findings]}

"""The recorder's state as diagnostic_msgs: one status for the recorder, one for each topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from lehrling.collection.capture_words import LAG_PROMISED_MS, TopicFacts
from lehrling.collection.recorder import Recorder
from lehrling.collection.session import GIB


def statuses(recorder: Recorder) -> list[Any]:
    """Return all statuses."""
    open_findings: dict[str, str] = {}
    for finding in recorder.findings:
        open_findings.pop(finding["topic"], None)
        if finding["until_ns"] is None:
            open_findings[finding["topic"]] = finding["text"]
    topics = {topic: facts for status in recorder.statuses for topic, facts in status.topics.items()}
    return [_recorder(recorder), *(_topic(topic, facts, open_findings) for topic, facts in sorted(topics.items()))]


def _status(name: str, problem: str, values: Mapping[str, object], level: bytes = DiagnosticStatus.ERROR) -> Any:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level if problem else DiagnosticStatus.OK, name=f"lehrling: {name}", message=problem or "ok", values=pairs
    )


def _recorder(recorder: Recorder) -> Any:
    session = recorder.session
    lag = max((status.lag_ms for status in recorder.statuses), default=0.0)
    lost = sum(f.lost_queue for s in recorder.statuses for f in s.topics.values())
    problem = f"the queue lags {lag:.0f} ms behind" if lag > LAG_PROMISED_MS else recorder.capture.failure()
    values = {
        "phase": session.phase.value,
        "episodes sealed": len(session.sealed),
        "episodes being sealed": session.sealing,
        "episodes failed": len(session.failed),
        "lag_ms": lag,
        "queue_bytes": sum(status.queue_bytes for status in recorder.statuses),
        "lost in the queue": lost,
        "free_gib": round(session.free_bytes / GIB, 2),
        "dataset": recorder.dataset.root,
    }
    return _status("recorder", problem, values)


def _topic(topic: str, facts: TopicFacts, findings: dict[str, str]) -> Any:
    values = {
        "rate_hz": round(facts.rate_hz, 2),
        "wanted_hz": "any" if facts.wanted_hz is None else facts.wanted_hz,
        "latency_ms": "unknown" if facts.latency_ms is None else round(facts.latency_ms, 2),
        "age_s": "never heard" if facts.age_s is None else round(facts.age_s, 3),
        "written": facts.written,
        "lost in the queue": facts.lost_queue,
        "lost on the way": "unknown" if facts.lost_middleware is None else facts.lost_middleware,
        "publishers": facts.publishers,
        "qos": facts.qos,
    }
    return _status(topic, findings.get(topic, ""), values, DiagnosticStatus.WARN)

"""The topics that an embodiment binds."""

from __future__ import annotations

from lehrling.datasets.embodiment import Embodiment, Source, Stream

NEEDED = ("observation", "action")


class BoundTopics:
    """The topics that an embodiment binds, by the names that a bag or a graph uses for them.

    Attributes:
        types: message type per topic, as the embodiment names it.
        feeds: the streams that a topic feeds, each with its source.
        names: a topic's full name, with the robot's namespace.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        binding, prefix = embodiment.binding, embodiment.binding.namespace.strip("/")
        self.types = binding.topics
        self.feeds: dict[str, list[tuple[Stream, Source]]] = {topic: [] for topic in self.types}
        for stream in embodiment.contract.all_streams:
            for source in binding.sources[stream.name]:
                self.feeds[source.topic].append((stream, source))
        self.names = {topic: f"/{prefix}{topic}" if prefix else topic for topic in self.types}
        self._declared = {name: topic for topic, name in self.names.items()}

    def declared(self, topic: str) -> str | None:
        """Return the embodiment's name of a topic, or None where it is not bound."""
        return self._declared.get(topic)

    def needed(self, topic: str) -> bool:
        """Whether an observation or action comes from this topic."""
        return any(stream.role in NEEDED for stream, _ in self.feeds[topic])

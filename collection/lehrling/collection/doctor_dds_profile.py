"""What Fast DDS would be configured with: environment variable, XML profile, or its default.

Precedence and sizes as measured with Fast DDS 3.2: an XML profile's transports beat FASTDDS_BUILTIN_TRANSPORTS, the segment is
twice `sockets_size`, MB means 1,000,000 bytes, and FASTRTPS_DEFAULT_PROFILES_FILE is still read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from lehrling.collection.doctor_host import Host

SEGMENT_DEFAULT = 512 * 1024
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
PROFILE_HERE = "DEFAULT_FASTDDS_PROFILES.xml"
UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
DEFAULT_KINDS = ("DEFAULT", "DEFAULTV6", "SHM")
LARGE_KINDS = ("LARGE_DATA", "LARGE_DATAV6")
OTHER_KINDS = ("UDPV4", "UDPV6", "P2P", "NONE")


@dataclass(frozen=True)
class Segment:
    """The segment a new participant gets.

    Attributes:
        bytes: None where it depends on what is not known here.
        source: what sets it, for people.
        shared: whether shared memory is used at all.
        problem: why the configuration cannot be what was meant, a sentence; empty where it can.
    """

    bytes: int | None
    source: str
    shared: bool = True
    problem: str = ""


def configured_segment(host: Host) -> Segment:
    """Return what a participant started from this shell would get."""
    named = next((host.environ[name] for name in PROFILE_VARIABLES if host.environ.get(name)), "")
    path = host.cwd / (named or PROFILE_HERE)
    if named and not path.is_file():
        return Segment(None, named, problem=f"Fast DDS is told to read {path}, but there is no such file")
    if path.is_file() and (named or host.environ.get("SKIP_DEFAULT_XML_FILE") != "1"):
        found = _from_profile(host, path)
        if found is not None:
            return found
    text = host.environ.get("FASTDDS_BUILTIN_TRANSPORTS", "")
    if not text:
        return Segment(SEGMENT_DEFAULT, "Fast DDS's default")
    kind, _, options = text.partition("?")
    pairs = dict(pair.partition("=")[::2] for pair in options.split("&") if pair)
    return _builtin(kind, pairs.get("sockets_size", ""), f"FASTDDS_BUILTIN_TRANSPORTS={text}")


def _builtin(kind: str, sockets_size: str, source: str) -> Segment:
    """Read a built-in transport's name and option."""
    upper = kind.strip().upper()
    if upper not in DEFAULT_KINDS + LARGE_KINDS + OTHER_KINDS:
        return Segment(
            SEGMENT_DEFAULT, source, problem=f"{source} names no transport of Fast DDS, which takes its default"
        )
    if upper in OTHER_KINDS:
        return Segment(None, f"{source}: no shared memory", shared=False)
    if not sockets_size:
        return Segment(SEGMENT_DEFAULT if upper in DEFAULT_KINDS else None, source)
    count = re.fullmatch(r"(\d+)\s*([KMG]?B)?", sockets_size.strip().upper())
    if count is None:
        return Segment(None, source, problem=f"{source}: {sockets_size!r} is no size such as 16MB")
    return Segment(2 * int(count[1]) * UNITS[count[2] or ""], source)


def _from_profile(host: Host, path: Path) -> Segment | None:
    """Return what an XML profile sets, None where it sets no transports."""
    text = host.text(path)
    if text is None or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return Segment(None, str(path), problem=f"{path} cannot be read as a Fast DDS profile")
    try:
        root = ET.fromstring(text)  # noqa: S314 — no document type, at most 1 MiB
    except ET.ParseError as error:
        return Segment(None, str(path), problem=f"{path} is not XML: {error}")
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    participant = next((p for p in root.iter("participant") if p.get("is_default_profile") == "true"), None)
    return None if participant is None else _participant(root, participant, str(path))


def _participant(root: ET.Element, participant: ET.Element, source: str) -> Segment | None:
    builtin = next(participant.iter("builtinTransports"), None)
    if builtin is not None:
        return _builtin((builtin.text or "").strip(), builtin.get("sockets_size", ""), source)
    wanted = {(e.text or "").strip() for e in participant.iter("transport_id")}
    shared = [
        descriptor
        for descriptor in root.iter("transport_descriptor")
        if descriptor.findtext("transport_id", "").strip() in wanted
        and descriptor.findtext("type", "").strip() == "SHM"
    ]
    if shared:
        text = shared[0].findtext("segment_size", "").strip()
        return Segment(int(text) if text.isdecimal() else SEGMENT_DEFAULT, source)
    use = next(participant.iter("useBuiltinTransports"), None)
    if wanted and use is not None and (use.text or "").strip() == "false":
        return Segment(None, f"{source}: no shared memory", shared=False)
    return None

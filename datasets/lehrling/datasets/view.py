"""Views: what training reads. Specify, build, open."""

from __future__ import annotations

from lehrling.datasets.view_build import build_view
from lehrling.datasets.view_data import View
from lehrling.datasets.view_meta import ViewEpisode
from lehrling.datasets.view_spec import VIEW_FORMAT, Crop, EpisodeFilter, Field, ViewSpec

__all__ = [
    "VIEW_FORMAT",
    "Crop",
    "EpisodeFilter",
    "Field",
    "View",
    "ViewEpisode",
    "ViewSpec",
    "build_view",
]

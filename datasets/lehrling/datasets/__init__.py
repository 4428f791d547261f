"""Embodiments, journals, sealed Zarr episodes, manifests and training views."""

"""Models by their name on the Hugging Face hub: found in the library's cache, and fetched only where that is asked for."""

from dcmerge.checkpoints.hub.fetching import Plan, fetched, located, planned_fetch
from dcmerge.checkpoints.hub.names import PREFIX, HubName, cached, is_hub, name_in_cache

__all__ = ["PREFIX", "HubName", "Plan", "cached", "fetched", "is_hub", "located", "name_in_cache", "planned_fetch"]

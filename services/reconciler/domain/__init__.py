"""The rules of reconciling: what a difference is, what heals by itself, and when a run is due. Pure."""

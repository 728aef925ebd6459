"""The detection networks and what they share."""

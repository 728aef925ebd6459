"""Detections in images of one's own: reading them, finding, drawing, and streams of thousands."""

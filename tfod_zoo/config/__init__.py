"""pipeline.config and label maps, without TensorFlow."""

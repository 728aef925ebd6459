"""A detector behind HTTP: a page to drop images on, and TensorFlow Serving's REST form."""

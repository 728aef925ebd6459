"""Detection by classification: what the field did before networks proposed boxes."""

"""The registry of zoo models and the store that holds their archives."""

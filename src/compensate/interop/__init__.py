"""Sagas of other libraries."""

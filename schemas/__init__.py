"""JSON Schemas (draft 2020-12) of every kind, shipped as package data."""

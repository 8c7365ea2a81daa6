"""Runs and diagnosed models as one page, Markdown, JSON or a table."""

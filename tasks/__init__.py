"""Celery's side: the app, and one short file per consumer."""

"""Mechanics that every service uses; this package knows no service."""

"""Carriers' adapters against their own descriptions, their own libraries, and the sandbox's faces of them."""

"""Fulfillment: what tax comes to, and how parcels travel."""

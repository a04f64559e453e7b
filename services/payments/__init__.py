"""Payments: orders, price snapshots, intents and the ledger."""

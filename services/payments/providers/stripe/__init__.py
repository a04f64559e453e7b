"""Stripe: PaymentIntents captured by hand, over its HTTP API (docs.stripe.com/api)."""

# The one place that says which version of Stripe's API we speak: the one that stripe-python 16.1.0, our judge in tests, is written for.
API_VERSION = "2026-10-28.endive"

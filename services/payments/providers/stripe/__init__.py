"""Stripe: PaymentIntents captured by hand, over its HTTP API (docs.stripe.com/api)."""

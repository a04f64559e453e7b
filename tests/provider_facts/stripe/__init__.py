"""Facts about Stripe. Its library (stripe-python 16.1.0, a dev dependency, MIT) is the judge of every field."""

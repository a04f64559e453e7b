"""What fulfillment keeps, in SQL."""

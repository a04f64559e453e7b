"""The demonstration: an order from the rates to the export, over the real system."""

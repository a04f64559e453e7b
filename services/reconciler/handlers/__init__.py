"""What the reconciler does: compare, schedule, and answer operators."""

"""What two services share: their messages and nothing else."""

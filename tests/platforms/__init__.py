"""What the suite cannot bring: Debian systems made with debootstrap, and scripts that need an installed Postgres or PgBouncer."""

"""What needs servers that the suite cannot bring: each module is a script that needs an installed Postgres, and says what it saw."""

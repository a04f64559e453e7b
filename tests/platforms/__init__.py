"""Debian systems made with debootstrap, in which the demo and the suite run; a table says how each of them did."""

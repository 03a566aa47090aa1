"""Leases, who leads, and locks. Imports `engines` and what lies below."""

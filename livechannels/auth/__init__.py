"""Who is there and may connect: sessions, users, origins, tokens. Imports nothing above `conf`."""

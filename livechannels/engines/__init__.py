"""Where it is kept: one contract, two engines. Imports `messages` and what lies below."""

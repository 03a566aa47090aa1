"""What travels, pure: positions, publications, topics, frames, policies, codes. Imports nothing but `exceptions`."""

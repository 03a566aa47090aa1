"""One process and event loop: follows topics and fans out to its members. Imports `engines` and what lies below."""

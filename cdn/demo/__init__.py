"""A small CDN on one machine: an origin with real files, and what brings up the rest before it."""

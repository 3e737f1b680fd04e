"""The smallest files that are fine, for tests to break."""

EDGE = """\
role: edge
name: edge-a
listen: 127.0.0.1:8080
shields:
  - name: yokohama
    url: http://127.0.0.1:8180
services: services/*.yaml
"""

SHIELD = """\
role: shield
name: shield-yokohama
listen: 127.0.0.1:8180
edges: {prefixes: [127.0.0.0/8]}
services: services/*.yaml
"""

FILMS = """\
name: films
hosts: [films.example]
origins: [http://127.0.0.1:9000]
"""

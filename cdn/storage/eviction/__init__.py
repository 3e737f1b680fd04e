"""Replacement: who goes when bytes are short. Pure policies on one interface, see `policy.py`.

RAM is governed by GDG, the disk by two logs; the others are what it is measured against (nginx and
Varnish: LRU, Squid: GDSF) and what was tried. docs/HITRATIO.md has the figures.
"""

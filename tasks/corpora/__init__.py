"""Data that tasks read: cards that say where it is and what it must be, and the one function that loads it."""

from tasks.corpora.card import Card, Hub, InPackage, LocalPath, Source
from tasks.corpora.library import add, get, names
from tasks.corpora.load import load, of_file

__all__ = ["Card", "Hub", "InPackage", "LocalPath", "Source", "add", "get", "load", "names", "of_file"]

"""Data that tasks read: cards that say where it is and what it must be, and the functions that fetch and load it."""

from tasks.corpora.card import Card, InPackage, LocalPath, Source
from tasks.corpora.download import home, offline
from tasks.corpora.library import add, get, names
from tasks.corpora.load import fetch, load, of_file, pinned
from tasks.corpora.remote import HubText, Remote, Url

__all__ = [
    "Card",
    "HubText",
    "InPackage",
    "LocalPath",
    "Remote",
    "Source",
    "Url",
    "add",
    "fetch",
    "get",
    "home",
    "load",
    "names",
    "of_file",
    "offline",
    "pinned",
]

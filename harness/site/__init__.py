"""The site: static pages made of records alone, to open from a folder or to put on any web server."""

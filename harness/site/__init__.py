"""The site: everything published, as pages that need no server."""

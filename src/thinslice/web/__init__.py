"""The HTTP doors: the JSON API, the console, the demo shop and the tag, as one application per worker."""

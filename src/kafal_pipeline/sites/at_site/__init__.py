"""A site's side: its file `site.yml`, its images, what it keeps, and what it answers."""

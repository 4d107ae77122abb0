"""Tables and pages as Markdown, LaTeX, CSV, HTML, and text for a terminal."""

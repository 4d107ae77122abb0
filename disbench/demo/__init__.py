"""The demo: a page on this machine; a person clicks on a photo and sees what a method makes of it (docs/demo.md)."""

"""Commands for those who maintain the course; not part of the installed package."""

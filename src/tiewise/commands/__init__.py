"""The commands, by what they are for; each is a few lines over the library."""

"""What all rooms share: errors, files, settings, the command line."""

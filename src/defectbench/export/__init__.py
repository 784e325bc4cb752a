"""A finished cell goes to work: its fitted model in a folder, and pictures scored with that folder alone."""

"""Where to work on the data, and what that brings: priorities, labels, augmentation, more data."""

"""The kinds of receivers, one file each: what may be configured, and the message that it becomes."""

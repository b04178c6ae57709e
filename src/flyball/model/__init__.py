"""Values that every room shares: labels, frames, durations, quantities, selectors. No I/O, no clock."""

"""Builds promtool 3.14, without service discovery, and prints the binary's path."""

from gomodule import binary

if __name__ == "__main__":
    module = "github.com/prometheus/prometheus@v0.314.0"
    print(binary("promtool", module, "3.14.0", "./cmd/promtool", ("-tags", "remove_all_sd")))

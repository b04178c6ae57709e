"""Builds the real prometheus-adapter and prints the binary's path."""

from gomodule import binary

if __name__ == "__main__":
    print(binary("prometheus-adapter", "sigs.k8s.io/prometheus-adapter@v0.12.0", "0.12.0", "./cmd/adapter"))

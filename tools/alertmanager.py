"""Builds Alertmanager 0.33.1, without its page, and amtool; prints the two binaries' paths."""

from gomodule import binary

MODULE, VERSION = "github.com/prometheus/alertmanager@v0.33.1", "0.33.1"
PAGE = {"ui/app/dist/index.html": "<html></html>"}


if __name__ == "__main__":
    print(binary("alertmanager", MODULE, VERSION, "./cmd/alertmanager", files=PAGE))
    print(binary("amtool", MODULE, VERSION, "./cmd/amtool", files=PAGE))

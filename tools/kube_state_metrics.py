"""Builds kube-state-metrics 2.20.0; prints the binary's path."""

from gomodule import binary

MODULE, VERSION = "k8s.io/kube-state-metrics/v2@v2.20.0", "2.20.0"
STAMP = f"-X github.com/prometheus/common/version.Version={VERSION}"


if __name__ == "__main__":
    print(binary("kube-state-metrics", MODULE, VERSION, ".", flags=("-ldflags", f"-s -w {STAMP}")))

"""Builds the real helm and prints the binary's path."""

from gomodule import binary

if __name__ == "__main__":
    print(binary("helm", "helm.sh/helm/v3@v3.16.4", "3.16.4", "./cmd/helm"))

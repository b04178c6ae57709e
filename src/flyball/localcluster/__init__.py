"""The embedded cluster: a Kubernetes-compatible API server, its workloads and its node."""

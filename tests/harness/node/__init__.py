"""Real Kubernetes node on this machine: kubelet, containerd, runc and kube-proxy."""

"""A real single-node Kubernetes cluster for tests, from Go modules and Debian packages.

    start (cluster.py)   the test run, or `up`: builds what is missing, claims an index, waits until ready
      guardian.py        holds the claim; ends the node when its starter ends, and removes cgroups and files
        node.py          process 1 of namespaces of its own (processes, mounts, network): whatever runs in
                         them ends with it, and mounts, links, routes and packet filters go with the namespaces
          components.py  etcd, API server, controllers, scheduler, containerd, kubelet, kube-proxy, CoreDNS,
                         the volumes' provisioner (storage.py), the object store (versitygw)

Each index has a network of its own, 10.(200 + index).0.0/16, which the host reaches over one link: the
API server, DNS and S3 on the node's address, and every pod on its own. Pods reach nothing else, the
internet least of all. The harness needs the standard library only.
"""

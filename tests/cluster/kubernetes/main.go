// Command cluster is every Kubernetes component of the test cluster in one binary.
//
// It runs the component that its own name or its first argument tells: `cluster kubelet --config f`,
// or `kubelet --config f` through a symbolic link named kubelet.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components maps a component's name to what runs it; each reads os.Args and returns the exit status.
var components = map[string]func() int{
	"kube-apiserver":          run(apiserver.NewAPIServerCommand),
	"kube-controller-manager": run(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          run(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              run(proxy.NewProxyCommand),
	"kubelet":                 run(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl":                 runKubectl,
	"etcd":                    func() int { etcdmain.Main(os.Args); return 0 },
}

func main() {
	component, found := components[filepath.Base(os.Args[0])]
	if !found && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		component, found = components[os.Args[0]]
	}
	if !found {
		fmt.Fprintf(os.Stderr, "usage: cluster COMPONENT [ARGUMENT...]; components: %s\n", strings.Join(names(), ", "))
		os.Exit(64)
	}
	os.Exit(component())
}

func run(build func() *cobra.Command) func() int {
	return func() int { return cli.Run(build()) }
}

// runKubectl prints errors as kubectl does, which is not how the servers do.
func runKubectl() int {
	kubectlutil.CheckErr(cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()))
	return 0
}

func names() []string {
	known := make([]string, 0, len(components))
	for name := range components {
		known = append(known, name)
	}
	slices.Sort(known)
	return known
}

// Kubebox is everything of Kubernetes that a cluster of the lab runs, in one file.
//
// The seven programs share most of their code: linked together they take a quarter of the space and of the time to
// link that they take apart. Which of them runs is decided by the name it is called by (a link `kubelet` to the file),
// or by the first argument (`kubebox kubelet ...`).
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
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	// What the programs' own main packages register.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// daemon runs a cobra command to its end, with Kubernetes' way of setting up logs.
func daemon(command func() *cobra.Command) func() int {
	return func() int { return cli.Run(command()) }
}

var programs = map[string]func() int{
	"kube-apiserver": daemon(func() *cobra.Command { return apiserver.NewAPIServerCommand() }),
	"kube-controller-manager": daemon(func() *cobra.Command {
		return controllermanager.NewControllerManagerCommand()
	}),
	"kube-scheduler": daemon(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":     daemon(func() *cobra.Command { return proxy.NewProxyCommand() }),
	"kubelet":        daemon(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl":        runKubectl,
	"etcd":           func() int { etcdmain.Main(os.Args); return 0 },
}

// runKubectl reports errors as kubectl does: in its own words and with its own exit codes.
func runKubectl() int {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
	return 0
}

func main() {
	name := filepath.Base(os.Args[0])
	if programs[name] == nil && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	run := programs[name]
	if run == nil {
		var names []string
		for name := range programs {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintln(os.Stderr, "usage: kubebox", strings.Join(names, "|"), "[ARGUMENT...]")
		os.Exit(2)
	}
	os.Exit(run())
}

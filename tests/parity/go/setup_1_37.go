package podautoscaler

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/monitor"
	consistencyutil "k8s.io/kubernetes/pkg/controller/util/consistency"
	"k8s.io/kubernetes/pkg/controller/util/selectors"
)

func newController(w *world, s settings) *HorizontalController {
	return &HorizontalController{
		tolerance:                    s.Tolerance,
		replicaCalc:                  NewReplicaCalculator(w, &pods{w: w}, seconds(s.CPUInitialization), seconds(s.InitialReadiness)),
		downscaleStabilisationWindow: seconds(s.Stabilization),
		monitor:                      monitor.New(),
		selectorTracker:              newHPASelectorStore(),
		consistencyStore:             consistencyutil.NewNoopConsistencyStore(),
	}
}

func registerSelector(a *HorizontalController, key string, selector labels.Selector) {
	parsed := selectors.Parse(key)
	a.selectorTracker.PutIfAbsent(parsed.Namespace, parsed, selector)
}

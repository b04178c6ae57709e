package podautoscaler

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/monitor"
	"k8s.io/kubernetes/pkg/controller/util/selectors"
)

func newController(w *world, s settings) *HorizontalController {
	return &HorizontalController{
		tolerance:                    s.Tolerance,
		replicaCalc:                  NewReplicaCalculator(w, &pods{w: w}, seconds(s.CPUInitialization), seconds(s.InitialReadiness)),
		downscaleStabilisationWindow: seconds(s.Stabilization),
		monitor:                      monitor.New(),
		hpaSelectors:                 selectors.NewBiMultimap(),
	}
}

func registerSelector(a *HorizontalController, key string, selector labels.Selector) {
	a.hpaSelectors.PutSelector(selectors.Parse(key), selector)
}

// Writes down the cases of upstream's own tests while they run: what went in and what upstream's code answered.
//
// This file is compiled inside a copy of k8s.io/kubernetes/pkg/controller/podautoscaler together with its tests
// (see upstream.py), in which time.Now is a fixed instant, reconcileAutoscaler is renamed to reconcile, and the calls
// that the tests make are led through here. A test that fails in the copy fails the extraction, so that what is
// written down is also what upstream's tests expect.
package podautoscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	autoscalingclient "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/client-go/tools/record"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"k8s.io/kubernetes/pkg/controller/util/selectors"
	"k8s.io/kubernetes/pkg/features"
)

// The tests live at one instant and the controller just after it, as with a clock that runs.
var (
	testsNow   = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	harnessNow = func() time.Time { return testsNow.Add(time.Millisecond) }
)

type object = map[string]any

var (
	guard   sync.Mutex
	current string // the test that runs
	owners  = map[*HorizontalController]*owner{}
	counts  = map[string]int{}
	lines   = json.NewEncoder(open())
)

// owner is the test that a controller belongs to.
type owner struct {
	sync.Mutex
	test   string
	serial int
}

func open() *os.File {
	file, err := os.Create(os.Getenv("PARITY_CASES"))
	if err != nil {
		panic(err)
	}
	return file
}

func begin(t *testing.T) {
	guard.Lock()
	defer guard.Unlock()
	before := current
	current = t.Name()
	t.Cleanup(func() { guard.Lock(); current = before; guard.Unlock() })
}

func write(name, kind string, in, out object) {
	counts[name]++
	if err := lines.Encode(object{"name": name, "number": counts[name], "kind": kind, "in": in, "out": out}); err != nil {
		panic(err)
	}
}

func call(kind string, in, out object) {
	guard.Lock()
	defer guard.Unlock()
	write(current, kind, in, out)
}

func ms(at time.Time) int64 {
	return at.UnixMilli()
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func gates() object {
	gate := utilfeature.DefaultFeatureGate
	return object{
		"HPAScaleToZero":           gate.Enabled(features.HPAScaleToZero),
		"HPAConfigurableTolerance": gate.Enabled(features.HPAConfigurableTolerance),
		"PodLevelResources":        gate.Enabled(features.PodLevelResources),
		// a variable, which upstream's tests change
		"scaleUpLimitFactor": scaleUpLimitFactor,
	}
}

// --- one reconciliation ---

type witness struct {
	in, out  object
	readings object
	events   [][3]string
	writes   []int32
	status   *autoscalingv2.HorizontalPodAutoscalerStatus
	getError, updateError,
	selector string
	pods      corelisters.PodLister
	selecting []string
	namespace string
}

type seenScales struct {
	scaleclient.ScalesGetter
	w *witness
}
type seenScale struct {
	scaleclient.ScaleInterface
	w *witness
}

func (s *seenScales) Scales(namespace string) scaleclient.ScaleInterface {
	return &seenScale{s.ScalesGetter.Scales(namespace), s.w}
}
func (s *seenScale) Get(ctx context.Context, r schema.GroupResource, name string, o metav1.GetOptions) (*autoscalingv1.Scale, error) {
	scale, err := s.ScaleInterface.Get(ctx, r, name, o)
	s.w.getError = text(err)
	if err == nil {
		s.w.in["spec_replicas"], s.w.in["status_replicas"] = scale.Spec.Replicas, scale.Status.Replicas
		s.w.in["selector"] = scale.Status.Selector
		if selector, err := labels.Parse(scale.Status.Selector); err == nil {
			s.w.in["pods"] = listed(s.w.pods, s.w.namespace, selector)
		}
	}
	return scale, err
}
func (s *seenScale) Update(ctx context.Context, r schema.GroupResource, scale *autoscalingv1.Scale, o metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	wanted := scale.Spec.Replicas
	updated, err := s.ScaleInterface.Update(ctx, r, scale, o)
	s.w.updateError = text(err)
	if err == nil {
		s.w.writes = append(s.w.writes, wanted)
	}
	return updated, err
}

type seenHPAs struct {
	autoscalingclient.HorizontalPodAutoscalersGetter
	w *witness
}
type seenHPA struct {
	autoscalingclient.HorizontalPodAutoscalerInterface
	w *witness
}

func (s *seenHPAs) HorizontalPodAutoscalers(namespace string) autoscalingclient.HorizontalPodAutoscalerInterface {
	return &seenHPA{s.HorizontalPodAutoscalersGetter.HorizontalPodAutoscalers(namespace), s.w}
}
func (s *seenHPA) UpdateStatus(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, o metav1.UpdateOptions) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	s.w.status = hpa.Status.DeepCopy()
	return s.HorizontalPodAutoscalerInterface.UpdateStatus(ctx, hpa, o)
}

type seenEvents struct {
	record.EventRecorder
	w *witness
}

func (s *seenEvents) Event(o runtime.Object, kind, reason, message string) {
	s.w.events = append(s.w.events, [3]string{kind, reason, message})
	s.EventRecorder.Event(o, kind, reason, message)
}
func (s *seenEvents) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	s.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

type seenSelectors struct {
	hpaSelectorTracker
	w *witness
}

func (s *seenSelectors) HPAsMatchingPods(namespace string, pods []*v1.Pod, limit int) []selectors.Key {
	found := s.hpaSelectorTracker.HPAsMatchingPods(namespace, pods, limit)
	for _, key := range found {
		s.w.selecting = append(s.w.selecting, key.Namespace+"/"+key.Name)
	}
	sort.Strings(s.w.selecting)
	return found
}

type seenMetrics struct {
	metricsclient.MetricsClient
	readings object
}

func (s *seenMetrics) keep(key string, reading object, err error) {
	if err != nil {
		reading = object{"error": err.Error()}
	}
	if before, ok := s.readings[key]; ok {
		a, _ := json.Marshal(before)
		b, _ := json.Marshal(reading)
		if string(a) != string(b) {
			panic("two readings of " + key)
		}
	}
	s.readings[key] = reading
}
func (s *seenMetrics) GetResourceMetric(ctx context.Context, name v1.ResourceName, namespace string, selector labels.Selector, container string) (metricsclient.PodMetricsInfo, time.Time, error) {
	info, at, err := s.MetricsClient.GetResourceMetric(ctx, name, namespace, selector, container)
	s.keep(string(name)+"/"+container, podReading(info, at), err)
	return info, at, err
}
func (s *seenMetrics) GetRawMetric(name, namespace string, selector, metricSelector labels.Selector) (metricsclient.PodMetricsInfo, time.Time, error) {
	info, at, err := s.MetricsClient.GetRawMetric(name, namespace, selector, metricSelector)
	s.keep(name, podReading(info, at), err)
	return info, at, err
}
func (s *seenMetrics) GetObjectMetric(name, namespace string, ref *autoscalingv2.CrossVersionObjectReference, metricSelector labels.Selector) (int64, time.Time, error) {
	value, at, err := s.MetricsClient.GetObjectMetric(name, namespace, ref, metricSelector)
	s.keep(name, object{"values": []int64{value}}, err)
	return value, at, err
}
func (s *seenMetrics) GetExternalMetric(name, namespace string, selector labels.Selector) ([]int64, time.Time, error) {
	values, at, err := s.MetricsClient.GetExternalMetric(name, namespace, selector)
	s.keep(name, object{"values": append([]int64{}, values...)}, err)
	return values, at, err
}

func podReading(info metricsclient.PodMetricsInfo, _ time.Time) object {
	values := object{}
	for name, metric := range info {
		values[name] = []int64{metric.Value, ms(metric.Timestamp), metric.Window.Milliseconds()}
	}
	return object{"pods": values}
}

func listed(lister corelisters.PodLister, namespace string, selector labels.Selector) []object {
	found, err := lister.Pods(namespace).List(selector)
	if err != nil {
		panic(err)
	}
	sort.Slice(found, func(a, b int) bool { return found[a].Name < found[b].Name })
	return objects(found)
}

// objects are pods as JSON, in which a time that is set to zero stays a time: upstream's tests have many of them.
func objects(pods []*v1.Pod) []object {
	out := []object{}
	for _, pod := range pods {
		var decoded object
		if raw, err := json.Marshal(pod); err != nil || json.Unmarshal(raw, &decoded) != nil {
			panic(pod)
		}
		status := decoded["status"].(object)
		if pod.Status.StartTime != nil && pod.Status.StartTime.IsZero() {
			status["startTime"] = "0001-01-01T00:00:00Z"
		}
		for at, condition := range pod.Status.Conditions {
			if condition.LastTransitionTime.IsZero() {
				status["conditions"].([]any)[at].(object)["lastTransitionTime"] = "0001-01-01T00:00:00Z"
			}
		}
		out = append(out, decoded)
	}
	return out
}

// history of an HPA; recommendations are absent where the controller has none, which is not an empty list.
func (a *HorizontalController) history(key string) object {
	out := object{"ups": events(a.scaleUpEvents[key]), "downs": events(a.scaleDownEvents[key])}
	if known := a.recommendations[key]; known != nil {
		list := [][]int64{}
		for _, r := range known {
			list = append(list, []int64{int64(r.recommendation), ms(r.timestamp)})
		}
		out["recommendations"] = list
	}
	return out
}

func events(of []timestampedScaleEvent) (out [][]any) {
	for _, e := range of {
		out = append(out, []any{e.replicaChange, ms(e.timestamp), e.outdated})
	}
	return out
}

func (a *HorizontalController) reconcileAutoscaler(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, key string) error {
	guard.Lock()
	if owners[a] == nil {
		owners[a] = &owner{test: current, serial: len(owners)}
	}
	own := owners[a]
	guard.Unlock()
	own.Lock() // one at a time for each controller; a test may end and leave one waiting for ever
	defer own.Unlock()
	w := &witness{pods: a.podLister, namespace: hpa.Namespace, readings: object{}}
	w.in = object{
		"now_ms": ms(harnessNow()), "hpa": hpa.DeepCopy(), "history": a.history(key), "readings": w.readings,
		"gates": gates(), "controller": own.serial,
		"settings": object{
			"tolerance":                   a.tolerance,
			"downscale_stabilization_s":   int64(a.downscaleStabilisationWindow.Seconds()),
			"cpu_initialization_period_s": int64(a.replicaCalc.cpuInitializationPeriod.Seconds()),
			"initial_readiness_delay_s":   int64(a.replicaCalc.delayOfInitialReadinessStatus.Seconds()),
		},
	}
	scales, hpas, recorder, tracker := a.scaleNamespacer, a.hpaNamespacer, a.eventRecorder, a.selectorTracker
	client := a.replicaCalc.metricsClient
	a.scaleNamespacer, a.hpaNamespacer = &seenScales{scales, w}, &seenHPAs{hpas, w}
	a.eventRecorder, a.selectorTracker = &seenEvents{recorder, w}, &seenSelectors{tracker, w}
	a.replicaCalc.metricsClient = &seenMetrics{client, w.readings}
	err := a.reconcile(ctx, hpa, key)
	a.scaleNamespacer, a.hpaNamespacer, a.eventRecorder, a.selectorTracker = scales, hpas, recorder, tracker
	a.replicaCalc.metricsClient = client
	w.in["get_error"], w.in["selecting"] = w.getError, w.selecting
	if len(w.writes) == 0 {
		w.in["update_error"] = w.updateError
	}
	w.out = object{"writes": w.writes, "error": text(err), "events": w.events, "status": w.status, "history": a.history(key)}
	guard.Lock()
	defer guard.Unlock()
	write(own.test, "reconcile", w.in, w.out)
	return err
}

// --- the calculator's methods, called by themselves ---

type recordedCalculator struct {
	*ReplicaCalculator
	t *testing.T
}

func (r recordedCalculator) run(target object, replicas, tolerances any, namespace string, selector labels.Selector, f func() (object, error)) {
	client := r.metricsClient
	seen := &seenMetrics{client, object{}}
	r.metricsClient = seen
	out, err := f()
	r.metricsClient = client
	out["error"] = text(err)
	in := object{
		"now_ms": ms(harnessNow()), "replicas": replicas, "metric": target, "namespace": namespace,
		"tolerances": tolerances, "readings": seen.readings, "gates": gates(),
		"settings": object{
			"cpu_initialization_period_s": int64(r.cpuInitializationPeriod.Seconds()),
			"initial_readiness_delay_s":   int64(r.delayOfInitialReadinessStatus.Seconds()),
		},
	}
	if selector != nil {
		in["pods"] = listed(r.podLister, namespace, selector)
	}
	call("calculate", in, out)
}

func band(t Tolerances) object { return object{"down": t.scaleDown, "up": t.scaleUp} }

func (r recordedCalculator) GetResourceReplicas(ctx context.Context, replicas int32, target int32, name v1.ResourceName, tolerances Tolerances, namespace string, selector labels.Selector, container string) (n int32, utilization int32, raw int64, at time.Time, err error) {
	kind, field := "Resource", "resource"
	source := object{"name": name, "target": object{"type": "Utilization", "averageUtilization": target}}
	if container != "" {
		kind, field, source["container"] = "ContainerResource", "containerResource", container
	}
	r.run(object{"type": kind, field: source}, replicas, band(tolerances), namespace, selector, func() (object, error) {
		n, utilization, raw, at, err = r.ReplicaCalculator.GetResourceReplicas(ctx, replicas, target, name, tolerances, namespace, selector, container)
		return object{"replicas": n, "utilization": utilization, "usage": raw}, err
	})
	return
}

func source(name string, ref *autoscalingv2.CrossVersionObjectReference, selector *metav1.LabelSelector, kind string, milli int64) object {
	identifier := object{"name": name}
	if selector != nil {
		identifier["selector"] = selector
	}
	field := "value"
	if kind == "AverageValue" {
		field = "averageValue"
	}
	quantity := resource.NewMilliQuantity(milli, resource.DecimalSI)
	out := object{"metric": identifier, "target": object{"type": kind, field: quantity}}
	if ref != nil {
		out["describedObject"] = ref
	}
	return out
}

func (r recordedCalculator) GetMetricReplicas(replicas int32, target int64, name string, tolerances Tolerances, namespace string, selector labels.Selector, metricSelector labels.Selector) (n int32, usage int64, at time.Time, err error) {
	r.run(object{"type": "Pods", "pods": source(name, nil, nil, "AverageValue", target)}, replicas, band(tolerances), namespace, selector, func() (object, error) {
		n, usage, at, err = r.ReplicaCalculator.GetMetricReplicas(replicas, target, name, tolerances, namespace, selector, metricSelector)
		return object{"replicas": n, "usage": usage}, err
	})
	return
}
func (r recordedCalculator) GetObjectMetricReplicas(replicas int32, target int64, name string, tolerances Tolerances, namespace string, ref *autoscalingv2.CrossVersionObjectReference, selector labels.Selector, metricSelector labels.Selector) (n int32, usage int64, at time.Time, err error) {
	r.run(object{"type": "Object", "object": source(name, ref, nil, "Value", target)}, replicas, band(tolerances), namespace, selector, func() (object, error) {
		n, usage, at, err = r.ReplicaCalculator.GetObjectMetricReplicas(replicas, target, name, tolerances, namespace, ref, selector, metricSelector)
		return object{"replicas": n, "usage": usage}, err
	})
	return
}
func (r recordedCalculator) GetObjectPerPodMetricReplicas(replicas int32, target int64, name string, tolerances Tolerances, namespace string, ref *autoscalingv2.CrossVersionObjectReference, metricSelector labels.Selector) (n int32, usage int64, at time.Time, err error) {
	r.run(object{"type": "Object", "object": source(name, ref, nil, "AverageValue", target)}, replicas, band(tolerances), namespace, nil, func() (object, error) {
		n, usage, at, err = r.ReplicaCalculator.GetObjectPerPodMetricReplicas(replicas, target, name, tolerances, namespace, ref, metricSelector)
		return object{"replicas": n, "usage": usage}, err
	})
	return
}
func (r recordedCalculator) GetExternalMetricReplicas(replicas int32, target int64, name string, tolerances Tolerances, namespace string, metricSelector *metav1.LabelSelector, selector labels.Selector) (n int32, usage int64, at time.Time, err error) {
	r.run(object{"type": "External", "external": source(name, nil, metricSelector, "Value", target)}, replicas, band(tolerances), namespace, selector, func() (object, error) {
		n, usage, at, err = r.ReplicaCalculator.GetExternalMetricReplicas(replicas, target, name, tolerances, namespace, metricSelector, selector)
		return object{"replicas": n, "usage": usage}, err
	})
	return
}
func (r recordedCalculator) GetExternalPerPodMetricReplicas(replicas int32, target int64, name string, tolerances Tolerances, namespace string, metricSelector *metav1.LabelSelector) (n int32, usage int64, at time.Time, err error) {
	r.run(object{"type": "External", "external": source(name, nil, metricSelector, "AverageValue", target)}, replicas, band(tolerances), namespace, nil, func() (object, error) {
		n, usage, at, err = r.ReplicaCalculator.GetExternalPerPodMetricReplicas(replicas, target, name, tolerances, namespace, metricSelector)
		return object{"replicas": n, "usage": usage}, err
	})
	return
}

// --- functions, called by themselves ---

func recordGroupPods(pods []*v1.Pod, metrics metricsclient.PodMetricsInfo, name v1.ResourceName, initialization, readiness time.Duration) (int, sets.Set[string], sets.Set[string], sets.Set[string]) {
	in := object{
		"now_ms": ms(harnessNow()), "pods": objects(pods), "resource": name, "reading": podReading(metrics, time.Time{}),
		"settings": object{
			"cpu_initialization_period_s": int64(initialization.Seconds()),
			"initial_readiness_delay_s":   int64(readiness.Seconds()),
		},
	}
	ready, unready, missing, ignored := groupPods(pods, metrics, name, initialization, readiness)
	call("groupPods", in, object{
		"ready": ready, "unready": sets.List(unready), "missing": sets.List(missing), "ignored": sets.List(ignored),
	})
	return ready, unready, missing, ignored
}

func recordRequests(pods []*v1.Pod, container string, name v1.ResourceName) (map[string]int64, error) {
	requests, err := calculateRequests(pods, container, name)
	call("requests", object{"pods": objects(pods), "container": container, "resource": name, "gates": gates()},
		object{"requests": requests, "error": text(err)})
	return requests, err
}

func recordPodRequests(pod *v1.Pod, container string, name v1.ResourceName) (int64, error) {
	request, err := calculatePodRequestsFromContainers(pod, container, name)
	call("requests", object{"pods": objects([]*v1.Pod{pod}), "container": container, "resource": name, "gates": gates()},
		object{"requests": object{pod.Name: request}, "error": text(err)})
	return request, err
}

func recordQuantity(name v1.ResourceName, raw int64) resource.Quantity {
	q := buildQuantity(name, raw)
	call("quantity", object{"resource": name, "raw": raw}, object{"quantity": q.String()})
	return q
}

func recordLimits(current, desired, low, high int32) (int32, string, string) {
	n, reason, message := convertDesiredReplicasWithRules(current, desired, low, high)
	call("limit", object{"now_ms": ms(harnessNow()), "current": current, "desired": desired, "min": low, "max": high, "gates": gates()},
		object{"replicas": n, "reason": reason, "message": message})
	return n, reason, message
}

func recordLimit(side string, current int32, ups, downs []timestampedScaleEvent, rules *autoscalingv2.HPAScalingRules, f func(int32, []timestampedScaleEvent, []timestampedScaleEvent, *autoscalingv2.HPAScalingRules) int32) int32 {
	n := f(current, ups, downs, rules)
	call("rate", object{"now_ms": ms(harnessNow()), "side": side, "current": current, "rules": rules,
		"history": object{"ups": events(ups), "downs": events(downs)}}, object{"replicas": n})
	return n
}
func recordUpLimit(current int32, ups, downs []timestampedScaleEvent, rules *autoscalingv2.HPAScalingRules) int32 {
	return recordLimit("up", current, ups, downs, rules, calculateScaleUpLimitWithScalingRules)
}
func recordDownLimit(current int32, ups, downs []timestampedScaleEvent, rules *autoscalingv2.HPAScalingRules) int32 {
	return recordLimit("down", current, ups, downs, rules, calculateScaleDownLimitWithBehaviors)
}

func recordChange(period int32, of []timestampedScaleEvent) int32 {
	n := getReplicasChangePerPeriod(period, of)
	call("change", object{"now_ms": ms(harnessNow()), "period_s": period, "events": events(of)}, object{"replicas": n})
	return n
}

// row names the case of a table whose test has no subtests.
type recordedController struct {
	*HorizontalController
	row string
}

func (r recordedController) stabilizeRecommendation(key string, raw int32) int32 {
	in := object{"now_ms": ms(harnessNow()), "raw": raw, "history": r.history(key),
		"settings": object{"downscale_stabilization_s": int64(r.downscaleStabilisationWindow.Seconds())}}
	n := r.HorizontalController.stabilizeRecommendation(key, raw)
	guard.Lock()
	defer guard.Unlock()
	write(current+r.row, "stabilize", in, object{"replicas": n, "history": r.history(key)})
	return n
}

func arguments(a NormalizationArg) object {
	return object{"now_ms": ms(harnessNow()), "current": a.CurrentReplicas, "raw": a.DesiredReplicas, "min": a.MinReplicas, "max": a.MaxReplicas,
		"behavior": object{"scaleUp": a.ScaleUpBehavior, "scaleDown": a.ScaleDownBehavior}}
}

func (r recordedController) stabilizeRecommendationWithBehaviors(a NormalizationArg) (int32, string, string) {
	in := arguments(a)
	in["history"] = r.history(a.Key)
	n, reason, message := r.HorizontalController.stabilizeRecommendationWithBehaviors(a)
	call("stabilize", in, object{"replicas": n, "reason": reason, "message": message, "history": r.history(a.Key)})
	return n, reason, message
}

func (r recordedController) convertDesiredReplicasWithBehaviorRate(a NormalizationArg) (int32, string, string) {
	in := arguments(a)
	in["history"] = r.history(a.Key)
	n, reason, message := r.HorizontalController.convertDesiredReplicasWithBehaviorRate(a)
	call("limit", in, object{"replicas": n, "reason": reason, "message": message})
	return n, reason, message
}

func (r recordedController) storeScaleEvent(behavior *autoscalingv2.HorizontalPodAutoscalerBehavior, key string, before, after int32) {
	// upstream writes into these maps; a test leaves the one that it does not look at nil
	if r.scaleUpEvents == nil {
		r.scaleUpEvents = map[string][]timestampedScaleEvent{}
	}
	if r.scaleDownEvents == nil {
		r.scaleDownEvents = map[string][]timestampedScaleEvent{}
	}
	in := object{"now_ms": ms(harnessNow()), "behavior": behavior, "current": before, "desired": after, "history": r.history(key)}
	r.HorizontalController.storeScaleEvent(behavior, key, before, after)
	call("store", in, object{"history": r.history(key)})
}
